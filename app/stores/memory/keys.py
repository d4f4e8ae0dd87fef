"""Keys in memory: they are gone with the process."""

import threading
from collections.abc import Sequence
from dataclasses import replace

from app.access.keys import Key
from app.errors import StoreFailed


class MemoryKeyStore:
    """Keys in a dictionary, by their ids; several threads may use it."""

    def __init__(self) -> None:
        self._keys: dict[str, Key] = {}
        self._lock = threading.Lock()

    def add(self, key: Key) -> None:
        with self._lock:
            if key.id in self._keys:
                raise StoreFailed(f"there is a key {key.id} already")
            self._keys[key.id] = key

    def list(self) -> Sequence[Key]:
        with self._lock:
            return sorted(self._keys.values(), key=lambda key: (key.created, key.id))

    def revoke(self, key_id: str, now: float) -> bool:
        with self._lock:
            key = self._keys.get(key_id)
            if key is not None and key.revoked is None:
                self._keys[key_id] = replace(key, revoked=now)
            return key is not None

    def close(self) -> None:
        pass
