"""The valid keys in a running server, read from their sources every second.

    source: a store of keys, the key file
       | list, in a thread, every second
       v
    Keyring: id -> digest, Caller        caller(token), for each request
       | a key is gone or revoked
       v
    Caller.end: those who watch it close their sockets

A source that cannot be read is trusted for `TRUST_SECONDS`; then its keys are refused with StoreFailed until it can be
read again, and so are requests without a key, if it is the store: it may have a first key by now. Once there was a key,
requests need one, whatever becomes of the sources.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from app.access.buckets import Clock
from app.access.keys import FILE_ID, SCOPES, Caller, Key, id_of, is_digest_of
from app.errors import EngramError, InvalidKey, KeyRequired, StoreFailed
from app.tenants import DEFAULT

logger = logging.getLogger(__name__)

REFRESH_SECONDS = 1.0
"""Time between two readings of a source."""

TRUST_SECONDS = 30.0
"""Time for which the keys of a source count that cannot be read."""

NO_DIGEST = secrets.token_bytes(32)
"""The digest of no key, with which keys of an unknown id are compared, so that they take no less time."""


class KeySource(Protocol):
    """Keys that are read again and again, from any thread."""

    def list(self) -> Sequence[Key]:
        """Return all keys, also revoked ones; the same object where none has changed saves work. Raises StoreFailed."""

    def close(self) -> None:
        """Release the resources of the source."""


class Entry(NamedTuple):
    """A valid key. There is one caller as long as it is valid, with one budget for all of its connections."""

    key: Key
    caller: Caller


class Source:
    """A source of keys, and those of its keys that are valid now.

    Reading is for any thread, all else for the event loop.
    """

    def __init__(self, source: KeySource, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._read_at = clock()
        self._is_failing = False
        self.keys: Sequence[Key] | None = None
        """As they were last read."""
        self.entries: dict[str, Entry] = {}
        self.is_stale = False
        """Whether the keys cannot be read for so long that none of them counts."""

    def read(self) -> tuple[float, Sequence[Key]]:
        """Return the keys, and the time at which they were read. Raises StoreFailed."""
        at = self._clock()
        return at, self._source.list()

    def take(self, at: float, keys: Sequence[Key]) -> list[Caller]:
        """Make the keys valid that are not revoked, and return the callers that are valid no more."""
        if self._is_failing:
            logger.warning("the keys can be read again")
        self._read_at, self._is_failing, self.is_stale = at, False, False
        if keys is self.keys:
            return []
        self.keys = keys
        before, self.entries = self.entries, self._entries_of(keys)
        return [entry.caller for key_id, entry in before.items() if self.entries.get(key_id) is not entry]

    def fail(self, error: BaseException) -> list[Caller]:
        """Log why the keys cannot be read, once, and do what `expire` does."""
        if not self._is_failing:
            self._is_failing = True
            logger.error("the keys cannot be read; those that are known count for %d s: %s", TRUST_SECONDS, error)
        return self.expire()

    def expire(self) -> list[Caller]:
        """Drop all keys if they were read too long ago, and return their callers."""
        if self.is_stale or self._clock() - self._read_at <= TRUST_SECONDS:
            return []
        logger.error("the keys could not be read for %d s: requests with a key are refused", TRUST_SECONDS)
        self.is_stale, self.keys = True, None
        before, self.entries = self.entries, {}
        return [entry.caller for entry in before.values()]

    def close(self) -> None:
        self._source.close()

    def _entries_of(self, keys: Sequence[Key]) -> dict[str, Entry]:
        valid = [key for key in keys if key.revoked is None]
        return {key.id: self._known(key) or Entry(key, self._caller(key)) for key in valid}

    def _known(self, key: Key) -> Entry | None:
        entry = self.entries.get(key.id)
        return entry if entry is not None and entry.key == key else None

    def _caller(self, key: Key) -> Caller:
        return Caller(key.tenant, key.scopes, key.limits, key.id, self._clock)


class Keyring:
    """The callers of the valid keys; the event loop alone uses it.

    required: whether requests need a key; once they do, they always do. Raises StoreFailed where the keys cannot be
    read.
    """

    def __init__(self, store: KeySource, key_file: KeySource | None = None, clock: Clock = time.monotonic) -> None:
        self.required = False
        self.anonymous = Caller(DEFAULT, frozenset(SCOPES))
        """Everybody, as long as no key is required."""
        self._store = Source(store, clock)
        self._file = None if key_file is None else Source(key_file, clock)
        self._sources = [source for source in (self._store, self._file) if source is not None]
        self._callers: Mapping[bytes, tuple[bytes, Caller]] = {}
        """The digest and the caller of each valid key, by its id."""
        for source in self._sources:
            self._take(source, *source.read())

    def caller(self, token: bytes | None) -> Caller:
        """Return the caller of a key, the same as long as the key is valid; None is a request without a key.

        Raises KeyRequired, InvalidKey; StoreFailed where the keys cannot be read.
        """
        if not self.required:
            if self._store.is_stale:
                raise _unreadable()
            return self.anonymous
        if token is None:
            raise _key_required()
        digest, caller = self._callers.get(id_of(token), (NO_DIGEST, self.anonymous))
        if not is_digest_of(digest, token):
            raise self._refusal(token)
        return caller

    async def keep_fresh(self) -> None:
        """Read the keys again every second, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for source in self._sources:
                group.create_task(self._keep_fresh(source))

    def close(self) -> None:
        """Close the sources."""
        for source in self._sources:
            source.close()

    async def _keep_fresh(self, source: Source) -> None:
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            await self._refresh(source)

    async def _refresh(self, source: Source) -> None:
        """Read a source once, whatever it raises and however long it takes."""
        reading = asyncio.create_task(asyncio.to_thread(source.read))
        try:
            while not (await asyncio.wait([reading], timeout=REFRESH_SECONDS))[0]:
                self._lose(source.expire())
        finally:
            reading.cancel()
        error = reading.exception()
        if error is not None:
            self._lose(source.fail(error))
        else:
            self._take(source, *reading.result())

    def _take(self, source: Source, at: float, keys: Sequence[Key]) -> None:
        if keys and not self.required:
            logger.info("there are keys: requests need one from now on")
            self.required = True
            self.anonymous.end(_key_required())
        is_changed = keys is not source.keys
        ended = source.take(at, keys)
        if is_changed:
            self._change(ended, _invalid_key())

    def _lose(self, callers: Sequence[Caller]) -> None:
        if callers:
            self._change(callers, _unreadable())

    def _change(self, ended: Sequence[Caller], error: EngramError) -> None:
        """Take the keys that are valid now, then end the callers that are valid no more."""
        entries = [entry for source in self._sources for entry in source.entries.values()]
        self._callers = {key.id.encode(): (key.digest, caller) for key, caller in entries}
        for caller in ended:
            logger.info("key %s of tenant %s is valid no more: %s", caller.key_id, caller.tenant, error.code)
            caller.end(error)

    def _refusal(self, token: bytes) -> EngramError:
        source = self._file if id_of(token) == FILE_ID.encode() else self._store
        return _unreadable() if source is not None and source.is_stale else _invalid_key()


def _key_required() -> KeyRequired:
    return KeyRequired("this server takes requests with a key only: send Authorization: Bearer KEY")


def _invalid_key() -> InvalidKey:
    return InvalidKey("the key is unknown or was revoked; engram keys list shows those that are valid")


def _unreadable() -> StoreFailed:
    return StoreFailed("the keys cannot be read, so none can be checked; try again later")
