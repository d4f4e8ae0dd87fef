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
from typing import IO

from training.files import CheckpointError, naming
from training.sharing.parts import MAX_FILES, check_size, is_part, parts_of

SUFFIXES = (".tar.gz", ".tgz")

CHUNK_BYTES = 2**20

MAX_BYTES = 16 * 2**30
"""Bytes that an archive may unpack to."""


def is_archive(name: str) -> bool:
    """Return whether a file is an archive, by its name."""
    return name.endswith(SUFFIXES)


def write(checkpoint: Path, name: str, path: Path) -> None:
    """Write the checkpoint as an archive in which it has a name. Raises ManifestError, OSError.

    A file of that path is replaced once the new one is whole.
    """
    following = path.with_name(f".{path.name}.next")
    with naming(path):
        try:
            with following.open("wb") as file:
                _write(checkpoint, name, file)
            following.replace(path)
        finally:
            following.unlink(missing_ok=True)


def _write(checkpoint: Path, name: str, file: IO[bytes]) -> None:
    with (
        gzip.GzipFile("", "wb", 6, file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for part, path in parts_of(checkpoint).items():
            entry = tarfile.TarInfo(f"{name}/{part}")
            entry.size = path.stat().st_size
            with path.open("rb") as content:
                archive.addfile(entry, content)


def read(path: Path, into: Path) -> str:
    """Unpack an archive into a directory that exists, and return the name in it. Raises CheckpointError, OSError."""
    names = set[str]()
    total = 0
    with _opened(path) as archive:
        for number, entry in enumerate(archive):
            name, part = _split(entry, path)
            names.add(name)
            total += entry.size
            if len(names) > 1:
                raise CheckpointError(f"{path}: expected one directory, got {', '.join(sorted(names))}")
            if number >= MAX_FILES or total > MAX_BYTES:
                raise CheckpointError(f"{path}: expected at most {MAX_FILES} files of {MAX_BYTES:,} bytes in all")
            check_size(part, entry.size, str(path))
            content = archive.extractfile(entry)
            assert content is not None  # it is a regular file
            with content, (into / part).open("xb") as file:
                shutil.copyfileobj(content, file)
    if not names:
        raise CheckpointError(f"{path}: the archive is empty")
    return names.pop()


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    """Open an archive; an error of its format, also of its checksum, names the file."""
    try:
        with gzip.open(path) as unpacked, tarfile.open(fileobj=unpacked, mode="r|") as archive:
            yield archive
            for _ in range(MAX_BYTES // CHUNK_BYTES):  # to the end, where gzip compares the checksum
                if not unpacked.read(CHUNK_BYTES):
                    break
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CheckpointError(f"{path}: not a whole .tar.gz archive: {error}") from error


def _split(entry: tarfile.TarInfo, path: Path) -> tuple[str, str]:
    """Return the names of the checkpoint and of the part. Raises CheckpointError for any other entry."""
    names = PurePosixPath(entry.name).parts
    if not entry.isfile() or len(names) != 2 or names[0].startswith((".", "/")) or not is_part(names[1]):
        raise CheckpointError(
            f"{path}: {entry.name!r} is no part of a checkpoint: expected regular files NAME/manifest.json, "
            "NAME/model.safetensors and so on; nothing was unpacked"
        )
    return names[0], names[1]
