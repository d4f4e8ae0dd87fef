"""A store that forgets everything with the process."""

from app.stores.base import EndReason


class MemoryStore:
    """Which sessions ended, and why, in a dictionary."""

    def __init__(self) -> None:
        self._ended: dict[str, EndReason] = {}

    def add(self, session: str, model: str) -> None:
        """Nothing to write down: what is open is known, and a restart leaves nothing."""

    def end(self, session: str, reason: EndReason) -> None:
        self._ended[session] = reason

    def end_reason(self, session: str) -> EndReason | None:
        return self._ended.get(session)

    def close(self) -> None:
        """Nothing to let go of."""
