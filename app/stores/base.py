"""The contract of a store."""

from typing import Literal, Protocol

EndReason = Literal["deleted", "expired", "lost in a restart"]


class Store(Protocol):
    """Remembers every session that was opened, so that one which is gone is never taken for one that never was.

    What cannot be written raises StoreFailed.
    """

    def add(self, session: str, model: str) -> None:
        """Record that a session was opened."""

    def end(self, session: str, reason: EndReason) -> None:
        """Record that a session ended, and why."""

    def end_reason(self, session: str) -> EndReason | None:
        """Return why a session ended; None for one that is open or unknown."""

    def close(self) -> None:
        """Let go of whatever the store holds."""
