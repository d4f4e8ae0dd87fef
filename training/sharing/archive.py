"""A checkpoint in one file, NAME.tar.gz. Needs no torch.

The same checkpoint gives the same bytes, so that its hash names it: files in the order of their names, without times,
owners and modes. Nothing is unpacked but regular files with the names of parts, in one directory.
"""

import gzip
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, cast

from training.files import CheckpointError, naming, writing
from training.sharing.parts import MAX_BYTES, MAX_FILES, check_size, is_part, parts_of

SUFFIXES = (".tar.gz", ".tgz")

CHUNK_BYTES = 2**20

MAX_HEADER_BYTES = 2**20
"""Bytes of an archive beside the contents of its files, at most: tarfile holds a long header in memory."""


def is_archive(name: str) -> bool:
    """Return whether a file is an archive, by its name."""
    return name.endswith(SUFFIXES)


def write(checkpoint: Path, name: str, path: Path) -> None:
    """Write the checkpoint as an archive in which it has a name. Raises ManifestError, OSError.

    A file of that path is replaced once the new one is whole.
    """
    with (
        writing(path) as file,
        gzip.GzipFile("", "wb", 6, file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for part, found in parts_of(checkpoint).items():
            entry = tarfile.TarInfo(f"{name}/{part}")
            entry.size = found.stat().st_size
            with found.open("rb") as content:
                archive.addfile(entry, content)


def read(path: Path, into: Path) -> str:
    """Unpack an archive into a directory that exists, and return the name in it. Raises CheckpointError, OSError."""
    names = set[str]()
    total = 0
    with _opened(path) as (archive, source):
        for number, entry in enumerate(archive):
            name, part = _split(entry, path)
            names.add(name)
            total += entry.size
            if len(names) > 1:
                raise CheckpointError(f"{path}: expected one directory, got {', '.join(sorted(names))}")
            if number >= MAX_FILES or total > MAX_BYTES:
                raise CheckpointError(f"{path}: expected at most {MAX_FILES} files of {MAX_BYTES:,} bytes in all")
            check_size(part, entry.size, str(path))
            if (into / part).exists():
                raise CheckpointError(f"{path}: {entry.name} is in the archive twice")
            source.expect(entry.size)
            _unpack(archive, entry, into / part)
    if not names:
        raise CheckpointError(f"{path}: the archive is empty")
    return names.pop()


def _unpack(archive: tarfile.TarFile, entry: tarfile.TarInfo, path: Path) -> None:
    content = archive.extractfile(entry)
    assert content is not None  # it is a regular file
    with naming(path), content, path.open("xb") as file:
        shutil.copyfileobj(content, file)


class _Source:
    """The bytes of an archive, of which those that nobody expects are at most MAX_HEADER_BYTES."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._left = MAX_HEADER_BYTES

    def expect(self, size: int) -> None:
        """Expect the contents of a file."""
        self._left += size

    def read(self, size: int) -> bytes:
        """Return the next bytes. Raises tarfile.ReadError."""
        data = self._file.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise tarfile.ReadError(f"its headers have more than {MAX_HEADER_BYTES:,} bytes")
        return data


@contextmanager
def _opened(path: Path) -> Iterator[tuple[tarfile.TarFile, _Source]]:
    """Open an archive; an error of its format, also of its checksum, names the file."""
    try:
        with gzip.open(path) as unpacked:
            source = _Source(cast(IO[bytes], unpacked))
            with tarfile.open(fileobj=cast(IO[bytes], source), mode="r|") as archive:
                yield archive, source
            for _ in range(MAX_BYTES // CHUNK_BYTES):  # to the end, where gzip compares the checksum
                if not unpacked.read(CHUNK_BYTES):
                    break
    except CheckpointError:
        raise
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a whole .tar.gz archive: {error}") from error  # tarfile raises the last two


def _split(entry: tarfile.TarInfo, path: Path) -> tuple[str, str]:
    """Return the names of the checkpoint and of the part. Raises CheckpointError for any other entry."""
    names = PurePosixPath(entry.name).parts
    is_plain = entry.isfile() and not entry.issparse() and entry.name.isprintable()
    if not is_plain or len(names) != 2 or names[0].startswith((".", "/")) or not is_part(names[1]):
        raise CheckpointError(
            f"{path}: {entry.name!r} is no part of a checkpoint: expected regular files NAME/manifest.json, "
            "NAME/model.safetensors and so on; nothing was unpacked"
        )
    return names[0], names[1]
