"""A file that a store has open: whether it is still the one that lies at its path, as the store left it.

An open file that is removed, or has another moved over it, can be written to as before, and all of it is gone when it
is closed; one that another program writes into is neither what that program wrote nor what the store did.
"""

import logging
import os
import zlib
from pathlib import Path
from typing import NamedTuple

from app.errors import StoreFailed

logger = logging.getLogger(__name__)

HEAD_BYTES = 4096
"""The first page of a database, which says how large it is and where its tables are."""


LEAVE = "stop the server, which leaves its files as they are now, and start it with those that it is to use"


class Seen(NamedTuple):
    """A file as it was left."""

    identity: tuple[int, int]
    size: int
    changed: int
    head: int


class OpenFile:
    """A file that SQLite has open, beside it. It must be closed after SQLite's: to close it lets go of all locks.

    remedy: where the file is gone. grows: every commit writes to it, so that only its size shows whether another
    program changed it.
    """

    def __init__(self, path: Path, remedy: str, grows: bool) -> None:
        self.number = os.open(path, os.O_RDONLY)
        self._path = str(path)
        self._remedy = remedy
        self._grows = grows
        self._seen = self._look(os.fstat(self.number))
        self._is_logged = False

    @property
    def was_overwritten(self) -> bool:
        """Whether another program has written into it."""
        return self._is_changed(os.fstat(self.number))

    def check_content(self) -> None:
        """Raise StoreFailed where another program has written into the file, so that its content is not known."""
        if self.was_overwritten:
            raise self._failed("another program has written into the file that this server has open", LEAVE)

    def check(self) -> None:
        """Raise StoreFailed unless this file is what lies at the path, as it was left."""
        if self._is_changed(self._at_path()):
            raise self._failed("another program has written into the file that this server has open", LEAVE)
        if self._is_logged:
            logger.warning("%s: the file that this server has open lies there again", self._path)
            self._is_logged = False

    def leave(self) -> bool:
        """Remember the file as this process has just left it, wherever it lies; return whether it lies at the path."""
        try:
            found = os.stat(self._path)
            is_there = self._is_this(found)
        except OSError:
            is_there = False
        if not is_there:
            found = os.fstat(self.number)
        if found.st_size != self._seen.size or (not self._grows and found.st_mtime_ns != self._seen.changed):
            self._seen = self._look(found)
        return is_there

    def close(self) -> None:
        os.close(self.number)

    def _at_path(self) -> os.stat_result:
        """Return the stat of this file at its path. Raises StoreFailed where another lies there, or none."""
        try:
            found = os.stat(self._path)
        except OSError as error:
            raise self._failed("the file that this server has open was removed or moved away", self._remedy) from error
        if not self._is_this(found):
            raise self._failed("another file lies where the one that this server has open was", self._remedy)
        return found

    def _is_this(self, found: os.stat_result) -> bool:
        return (found.st_dev, found.st_ino) == self._seen.identity

    def _is_changed(self, found: os.stat_result) -> bool:
        if self._grows or found.st_mtime_ns == self._seen.changed:
            return found.st_size != self._seen.size
        return (found.st_size, self._head()) != (self._seen.size, self._seen.head)

    def _look(self, found: os.stat_result) -> Seen:
        head = 0 if self._grows else self._head()
        return Seen((found.st_dev, found.st_ino), found.st_size, found.st_mtime_ns, head)

    def _head(self) -> int:
        return zlib.crc32(os.pread(self.number, HEAD_BYTES, 0))

    def _failed(self, what: str, remedy: str) -> StoreFailed:
        message = f"{self._path}: {what}, and nothing more is written: {remedy}"
        if not self._is_logged:
            logger.error("%s", message)
            self._is_logged = True
        return StoreFailed(message)
