"""The contract of a store of keys, and keys as rows of a table."""

from collections.abc import Sequence
from typing import Any, Protocol

from app.access.keys import Key, KeyLimits


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


def row_of(key: Key) -> tuple[Any, ...]:
    """Return the values of a key's row, in the types in which a database returns them."""
    limits = key.limits
    return (
        *(key.id, key.digest, key.tenant, ",".join(sorted(key.scopes)), key.name),
        *(float(key.created), _real(key.revoked)),
        *(limits.max_sessions, _real(limits.steps_per_second), limits.max_batch, limits.max_steps, limits.max_streams),
    )


def key_of(
    key_id: str, digest: bytes, tenant: str, scopes: str, name: str, created: float, revoked: float | None, *limits: Any
) -> Key:
    """Return the key of a row's values. Raises ValueError and TypeError for values of no key."""
    return Key(key_id, digest, tenant, frozenset(scopes.split(",")), KeyLimits(*limits), name, created, revoked)


def _real(value: float | None) -> float | None:
    return None if value is None else float(value)
