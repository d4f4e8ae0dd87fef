"""The store in memory: it forgets everything with the process.

It does what every store must do, in plain dictionaries, so it also says what the contract means. Random lives in the
tests compare the embedded store with it.
"""

from app.stores.memory.keys import MemoryKeyStore
from app.stores.memory.store import MemoryStore

__all__ = ["MemoryKeyStore", "MemoryStore"]
