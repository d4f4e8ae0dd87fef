"""Large uploads: kept in a file without a name while they arrive, and read into memory once they are whole."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import IO, TypeVar

from app.errors import StoreFailed

T = TypeVar("T")

IN_MEMORY = 2**20
"""Bytes of an upload that are in memory while it arrives; a smaller one needs no file."""

READ_AT_ONCE = 2
"""Large uploads that are in memory at a time, at most; the others wait in their files."""


class Uploads:
    """Receives large uploads."""

    def __init__(self, directory: Path | None) -> None:
        """directory: of the files; by default that of the system."""
        self._directory = directory
        self._reading = asyncio.Semaphore(READ_AT_ONCE)

    @contextlib.asynccontextmanager
    async def receive(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Return the bytes of an upload once it is whole, as a context in which they are used.

        Raises StoreFailed if its file cannot be written, and what the chunks raise.
        """
        with contextlib.ExitStack() as files:
            file, waiting = None, bytearray()
            async for chunk in chunks:
                waiting += chunk
                if len(waiting) > IN_MEMORY:
                    if file is None:
                        file = files.enter_context(self._file())
                    await _in_thread(_write, file, bytes(waiting))
                    waiting.clear()
            if file is None:
                yield bytes(waiting)
                return
            async with self._reading:
                yield await _in_thread(_read, file, bytes(waiting))

    def _file(self) -> IO[bytes]:
        try:
            return tempfile.TemporaryFile(dir=self._directory, buffering=0)
        except OSError as error:
            raise _failed(error) from None


def _write(file: IO[bytes], data: bytes) -> None:
    """Write all bytes, of which one call may write a part: on a disk that is nearly full."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def _read(file: IO[bytes], rest: bytes) -> bytes:
    """Return the content of a file after `rest` was added to it."""
    _write(file, rest)
    file.seek(0)
    return file.read()


async def _in_thread(function: Callable[..., T], *arguments: object) -> T:
    """Return the result of a function that uses a file. Raises StoreFailed."""
    try:
        return await asyncio.to_thread(function, *arguments)
    except OSError as error:
        raise _failed(error) from None


def _failed(error: OSError) -> StoreFailed:
    return StoreFailed(f"the upload could not be written to a file: {error.strerror}; free some space, or try later")
