"""The places of stores, for commands: a data directory, or the URL of a database that servers share.

place("data")                      place("postgresql://engram@db/engram")
    |                                  |
DirectoryPlace                     DatabasePlace          open_store, open_keys, migrate, status
"""

import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from app.errors import StoreFailed
from app.loading import require_postgres
from app.settings import Settings, SettingsError, kind_of
from app.store_url import is_url, masked, without_password
from app.stores.archive import Copied, CopyableStore, copy
from app.stores.keys import KeyStore
from app.stores.sqlite import FILE, SqliteKeyStore, SqliteStore
from app.stores.sqlite.database import is_in_use, version_of
from app.stores.sqlite.schema import SCHEMA_VERSION

if TYPE_CHECKING:
    from app.stores.postgres.database import Database


class KnownServer(NamedTuple):
    """A server that uses a store. place: where it says that it is; left: seconds of its lease, below 0 if it is over;
    None where the operating system says that the server lives.
    """

    name: str
    place: str
    left: float | None


class Status(NamedTuple):
    """A store as it is. version: of its schema, 0 where there is none; expected: that of this Engram.

    sessions, ended: None where they cannot be counted: another server has the file, or the schema is another one.
    size: bytes.
    """

    version: int
    expected: int
    sessions: int | None
    ended: int | None
    servers: list[KnownServer]
    size: int


class Place(Protocol):
    """A place where a store is, or may be. shown: as messages name it, without a password.

    All methods raise StoreFailed where it cannot be used.
    """

    shown: str

    def open_store(self, makes: bool) -> CopyableStore:
        """Return the store. makes: make it where there is none; else it must be there, and nothing is changed."""

    def open_keys(self) -> KeyStore:
        """Return the keys."""

    def migrate(self) -> tuple[int, int]:
        """Bring the schema up to date; return its version before, 0 for none, and after."""

    def status(self) -> Status:
        """Return how the store is; nothing is changed."""


def place(named: str) -> Place:
    """Return the place that a directory or a URL names. Raises SettingsError for a URL of something else."""
    if is_url(named):
        return DatabasePlace(named)
    if re.match(r"\w+:/", named) or "://" in named:
        raise SettingsError(f"{masked(named)!r}: expected a data directory, or a URL, postgresql://USER@HOST/DATABASE")
    return DirectoryPlace(Path(named))


def place_of(settings: Settings) -> Place:
    """Return the place of the settings' store. Raises SettingsError for one that has none."""
    kind = kind_of(settings.store)
    if kind == "memory":
        raise SettingsError("setting store: expected a store that outlives its server, got 'memory'")
    return DirectoryPlace(settings.data) if kind == "sqlite" else DatabasePlace(settings.store_url)


class DirectoryPlace:
    """A data directory, which one server at a time uses."""

    def __init__(self, directory: Path) -> None:
        self.shown = str(directory)
        self._directory = directory
        self._file = directory / FILE

    def open_store(self, makes: bool) -> CopyableStore:
        return SqliteStore(self._directory, opens=makes)

    def open_keys(self) -> KeyStore:
        return SqliteKeyStore(self._directory)

    def migrate(self) -> tuple[int, int]:
        before = version_of(self._file)
        SqliteStore(self._directory).close()
        return before, SCHEMA_VERSION

    def status(self) -> Status:
        if not self._file.is_file():
            raise StoreFailed(f"{self._file}: no such file; a server with --data {self._directory} makes it")
        servers = [KnownServer("a server of this machine", self.shown, None)] if is_in_use(self._file) else []
        version = SCHEMA_VERSION if servers else version_of(self._file)
        sessions, ended = (None, None) if servers or version != SCHEMA_VERSION else self._counts()
        size = sum(path.stat().st_size for path in self._directory.glob(f"{FILE}*"))
        return Status(version, SCHEMA_VERSION, sessions, ended, servers, size)

    def _counts(self) -> tuple[int, int]:
        with closing(SqliteStore(self._directory, opens=False)) as store:
            return store.totals()


class DatabasePlace:
    """A database in PostgreSQL, which several servers may share."""

    def __init__(self, url: str) -> None:
        try:
            self.shown, _ = without_password(url)
        except ValueError as error:
            raise SettingsError(f"{masked(url)!r}: {error}") from None
        require_postgres()
        self._url = url

    def open_store(self, makes: bool) -> CopyableStore:
        if not makes:
            with closing(self._database()) as database:
                self._check_there(database)
        from app.stores.postgres import PostgresStore

        return PostgresStore(self._url)

    def open_keys(self) -> KeyStore:
        from app.stores.postgres import PostgresKeyStore

        return PostgresKeyStore(self._url)

    def migrate(self) -> tuple[int, int]:
        from app.stores.postgres import schema
        from app.stores.postgres.archive import check_unused

        with closing(self._database()) as database:
            before = schema.version(database)
            if 0 < before < len(schema.MIGRATIONS):
                check_unused(database, ())
            schema.migrate(database)
            return before, schema.version(database)

    def status(self) -> Status:
        from app.stores.postgres.schema import MIGRATIONS
        from app.stores.postgres.status import leases, size, totals

        with closing(self._database()) as database:
            found = self._check_there(database)
            sessions, ended = totals(database) if found == len(MIGRATIONS) else (None, None)
            servers = [KnownServer(*lease) for lease in leases(database)]
            return Status(found, len(MIGRATIONS), sessions, ended, servers, size(database))

    def _database(self) -> "Database":
        from app.stores.postgres.database import Database

        return Database(self._url, "engram store")

    def _check_there(self, database: "Database") -> int:
        """Return the version of the schema. Raises StoreFailed where there is none."""
        from app.stores.postgres.schema import version

        found = version(database)
        if not found:
            raise StoreFailed(f"{database.name}: there are no tables of Engram in it; engram store migrate makes them")
        return found


class CopiedPlace(NamedTuple):
    """How many of each were copied, keys among them."""

    of_store: Copied
    keys: int


def copy_place(source: Place, target: Place, progress: Callable[[int, int], None]) -> CopiedPlace:
    """Copy all sessions and keys from one place to another, which has no sessions; call `progress` with the sessions
    done, and with the open ones.

    The keys come first, and are the same where the copy is begun anew. The sessions are all there in the end, or none
    is. Where servers use the source, nothing is made. Raises StoreFailed, SessionDamaged.
    """
    with closing(source.open_store(makes=False)) as found:
        with closing(found.contents()) as contents:
            next(contents, None)  # raises where servers use it
        return _copy_from(found, source, target, progress)


def _copy_from(found: CopyableStore, source: Place, target: Place, progress: Callable[[int, int], None]) -> CopiedPlace:
    """Copy what a store has, and the keys of its place."""
    with closing(target.open_store(makes=True)) as made:
        made.put(())  # raises where there are sessions, or servers use it: it then gets no keys either
        keys = _copy_keys(source, target)
        total = sum(found.counts().values())
        copied = copy(found, made, lambda done: progress(done, max(done, total)))
        made.sync()
        return CopiedPlace(copied, keys)


def _copy_keys(source: Place, target: Place) -> int:
    """Copy the keys that the target does not have. Raises StoreFailed where it has another one of the same id."""
    with closing(source.open_keys()) as found, closing(target.open_keys()) as made:
        there = {key.id: key for key in made.list()}
        keys = found.list()
        for key in keys:
            if there.get(key.id, key) != key:
                raise StoreFailed(f"{target.shown}: key {key.id} differs from that of {source.shown}; remove one")
        for key in keys:
            if key.id not in there:
                made.add(key)
        return len(keys)
