"""The contract of a store of keys."""

from collections.abc import Sequence
from typing import Protocol

from app.access.keys import Key


class KeyStore(Protocol):
    """The keys that were ever created. Several processes, and any threads, use it at the same time.

    Every call is carried out whole or not at all, and what it wrote survives a power cut and is read by every later
    call of any process. Raises StoreFailed for what cannot be read or written, also where a single key is damaged: none
    is left out in silence.
    """

    def add(self, key: Key) -> None:
        """Keep a new key. Raises StoreFailed where its id is taken."""

    def list(self) -> Sequence[Key]:
        """Return all keys, also the revoked ones, in the order of their creation."""

    def revoke(self, key_id: str, now: float) -> bool:
        """Revoke a key at `now`, Unix time in seconds; return whether there is one of this id.

        A key that was revoked before stays as it is: it is never valid again, and never forgotten.
        """

    def close(self) -> None:
        """Release the store's resources."""
