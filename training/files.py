"""Files and directories that are written whole or not at all. Standard library only."""

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from models.manifest import MANIFEST_FILE

TRAINING_FILE = "training.safetensors"

HERE, EXCHANGE = -100, 2
"""Arguments of renameat2: AT_FDCWD and RENAME_EXCHANGE."""


class CheckpointError(ValueError):
    """A directory that holds no checkpoint or training run to go on with, or one that would be lost."""


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that at any moment, also after a crash, the whole old file or the whole new one is there."""
    with writing(path) as file:
        file.write(data)
        os.chmod(file.name, 0o644)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Yield an empty file, which takes the name `path` at the end, as in `write_atomically`, unless it raises."""
    following = path.with_name(f".{path.name}.next")  # always this name, so that what a crash left is overwritten
    with naming(path):
        try:
            with following.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(following, path)
        except BaseException:
            following.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add the file to an error of writing it, and the remedy if the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # of a format, such as that of gzip
            raise
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "; free space there, and start the same command again, a training run with --resume" if full else ""
        raise OSError(error.errno, f"{error.strerror or error}{remedy}", str(path)) from error


@contextlib.contextmanager
def replacing(directory: Path) -> Iterator[Path]:
    """Yield an empty directory, which replaces `directory` at the end unless something raises.

    directory     old --.          .-- new         where the system can exchange two directories: in one step, so that
    .next/              '--- new --'-- old         there is always one in its place

    directory     old --.          .-- new         elsewhere two renames: after a crash, one of the two lies whole in
    .next/              |--- new --'               its place; after one between the renames, both lie beside it, and
    .previous/          '--- old ----- deleted     the next call puts the old one back

    Raises CheckpointError while another replacement of this directory is under way, in this process or another.
    """
    place = directory.resolve()
    following, previous = (place.parent / where / place.name for where in (".next", ".previous"))

    def tidy() -> None:
        if previous.exists() and not place.exists():
            os.replace(previous, place)
        for left in (following, previous):
            shutil.rmtree(left, ignore_errors=True)
            _remove_empty(left.parent)

    with _alone(following.with_name(f".{place.name}"), directory):
        tidy()
        following.mkdir()
        try:
            yield following
            if not _exchange(following, place):
                if place.exists():
                    _make(previous)
                    os.replace(place, previous)
                os.replace(following, place)
            sync_directory(place.parent)
        finally:
            tidy()


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two directories in one step; return whether both are there, and the system and its disk can."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)  # of Linux
    return rename is not None and rename(HERE, os.fsencode(one), HERE, os.fsencode(other), EXCHANGE) == 0


@contextlib.contextmanager
def _alone(sign: Path, place: Path) -> Iterator[None]:
    """Hold a directory that stands for the right to write a place. Raises CheckpointError while another holds it.

    The lock ends with the process; the directory that a crash leaves is used again.
    """
    descriptor = None
    try:
        with contextlib.suppress(FileExistsError):
            _make(sign)
        descriptor = os.open(sign, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_held = os.path.samestat(os.fstat(descriptor), os.stat(sign))
    except (FileNotFoundError, BlockingIOError):  # it was deleted by the other, at its end
        is_held = False
    try:
        if not is_held:
            raise CheckpointError(f"{place} is being replaced by another command: try again once that is done")
        yield
    finally:
        if is_held:
            _remove_empty(sign)
            _remove_empty(sign.parent)
        if descriptor is not None:
            os.close(descriptor)


def _make(directory: Path) -> None:
    """Make a directory in one that others make, and delete while it is empty. Raises FileExistsError."""
    for _ in range(100):
        with contextlib.suppress(FileNotFoundError):
            directory.parent.mkdir(parents=True, exist_ok=True)
            directory.mkdir()
            return
    raise FileNotFoundError(directory)


def _remove_empty(directory: Path) -> None:
    with contextlib.suppress(OSError):  # it does not exist, or holds the directories of others
        directory.rmdir()


@contextlib.contextmanager
def creating(directory: Path) -> Iterator[Path]:
    """Yield an empty directory whose files move into `directory` at the end, unless something raises.

    The manifest moves last: after a crash there is a whole checkpoint in `directory` or none, and the call can be
    repeated. Raises CheckpointError if there is one already.
    """
    for name in (TRAINING_FILE, MANIFEST_FILE):
        if (directory / name).exists():
            raise CheckpointError(f"{directory} holds a checkpoint, {name}: give another --out")
    place = directory.resolve()
    missing = [path for path in (place, *place.parents) if not path.exists()]
    following = place / ".unfinished"  # always this name, so that what a crash left is deleted
    shutil.rmtree(following, ignore_errors=True)
    following.mkdir(parents=True)
    try:
        yield following
        for path in sorted(following.iterdir(), key=lambda path: path.name == MANIFEST_FILE):
            os.replace(path, place / path.name)
        sync_directory(place)
    finally:
        shutil.rmtree(following, ignore_errors=True)
        for path in missing:
            with contextlib.suppress(OSError):  # it is not empty
                path.rmdir()


def sync_directory(directory: Path) -> None:
    """Have the disk know the names in a directory."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
