"""Push a checkpoint to a place, pull one from there."""

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from models.manifest import MANIFEST_FILE, sha256
from training.files import CheckpointError, replacing
from training.sharing import archive, hub, parts
from training.sharing.download import download

WEB = ("https://", "http://")

logger = logging.getLogger(__name__)


def push(checkpoint: Path, destination: str, hub_url: str | None = None, private: bool = False) -> str:
    """Copy a checkpoint to a directory, an archive or a hub, and return a line that says where it is.

    A directory that is there gets it under its name. A checkpoint that lies there is replaced as a whole.
    Raises ManifestError, CheckpointError, OSError.
    """
    name = checkpoint.resolve().name
    if destination.startswith(hub.SCHEME):
        with tempfile.TemporaryDirectory() as staging:
            url = hub.upload(checkpoint, hub.repository(destination), hub_url, private, Path(staging))
        return f"{destination}: {url}"
    if destination.startswith(WEB):
        raise CheckpointError(
            f"{destination}: a web server takes no checkpoint: give a directory, NAME.tar.gz or hf://"
        )
    if archive.is_archive(destination):
        archive.write(checkpoint, name, Path(destination))
        return f"{destination}: sha256 {sha256(Path(destination))}"
    into = Path(destination)
    into = into / name if into.is_dir() and not (into / MANIFEST_FILE).exists() else into
    found = parts.parts_of(checkpoint)  # an error before anything is written
    with replacing(into) as fresh:
        _require_replaceable(into, checkpoint)
        parts.copy(found, fresh)
    return str(into)


def pull(
    source: str,
    out: Path,
    name: str | None = None,
    expected: str | None = None,
    hub_url: str | None = None,
    show: Callable[[int, int], object] = lambda *_: None,
) -> Path:
    """Copy a checkpoint from a directory, an archive or a hub into `out`, and return its directory there.

    name: of the checkpoint in `out`; None: its own. expected: the SHA-256 of an archive, as hex. show: called with the
    bytes that came of an archive and their number. A checkpoint of that name is replaced as a whole, once the new one
    is there and its hashes agree. Raises ManifestError, CheckpointError, OSError.
    """
    if expected is not None and not archive.is_archive(source):
        raise CheckpointError(
            f"{source}: only an archive has a SHA-256; a revision names a state of a hub: hf://OWNER/NAME@COMMIT"
        )
    if name is not None:
        _check_name(name)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".pull-", dir=out) as directory:
        fetched, given = Path(directory) / "checkpoint", Path(directory) / "archive"
        fetched.mkdir()
        own = _fetch(source, fetched, given, expected, hub_url, show)
        parts.check(fetched)
        if name is None:
            _check_name(own)
        into = out / (own if name is None else name)
        with replacing(into) as fresh:
            _require_replaceable(into, fetched)
            for path in fetched.iterdir():
                path.replace(fresh / path.name)
    return into


def to_serve(source: str, hub_url: str | None = None, show: Callable[[int, int], object] = lambda *_: None) -> Path:
    """Return the directory of checkpoints that a source names; a checkpoint elsewhere is pulled into the user's cache.

    One that was pulled before is taken, with a warning, where the source cannot be reached now. Raises ManifestError,
    CheckpointError, OSError.
    """
    if Path(source).is_dir() and not (Path(source) / MANIFEST_FILE).exists():
        return Path(source)
    key = hashlib.sha256(f"{hub_url or ''} {source}".encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "engram" / key
    try:
        pull(source, cache, hub_url=hub_url, show=show)
    except CheckpointError as error:
        if not source.startswith((hub.SCHEME, *WEB)) or not [*cache.glob(f"*/{MANIFEST_FILE}")]:
            raise
        logger.warning("%s; serving what was pulled before, in %s", error, cache)
    return cache


def _check_name(name: str) -> None:
    """Raise CheckpointError for the name of a checkpoint that no directory, or only a hidden one, could have."""
    if not name or not name.isprintable() or Path(name).name != name or name.startswith("."):
        raise CheckpointError(
            f"{name!r} cannot be the name of a checkpoint: expected one of a directory, without slashes, control "
            "characters and a dot at its beginning; give another name"
        )


def _fetch(
    source: str, into: Path, given: Path, expected: str | None, hub_url: str | None, show: Callable[[int, int], object]
) -> str:
    """Write the parts of a checkpoint from elsewhere into a directory, and return its name there."""
    if source.startswith(hub.SCHEME):
        found = hub.repository(source)
        hub.download(found, hub_url, into)
        shutil.rmtree(into / ".cache", ignore_errors=True)  # of huggingface_hub
        return found.name
    if source.startswith(WEB):
        if not archive.is_archive(source):
            raise CheckpointError(f"{source}: expected the URL of an archive NAME.tar.gz, or hf://OWNER/NAME")
        download(source, given, show)
        return _unpack(source, given, expected, into)
    if archive.is_archive(source):
        return _unpack(source, Path(source), expected, into)
    parts.copy(parts.parts_of(Path(source)), into)
    return Path(source).resolve().name


def _unpack(source: str, path: Path, expected: str | None, into: Path) -> str:
    found = sha256(path)
    if expected is not None and found != expected.strip().lower():
        raise CheckpointError(f"{source}: its SHA-256 is {found}, but {expected} was expected: nothing was unpacked")
    return archive.read(path, into)


def _require_replaceable(into: Path, source: Path) -> None:
    """Raise CheckpointError where the directory holds anything but a checkpoint that can be replaced."""
    if into.resolve() == source.resolve():
        raise CheckpointError(f"{into}: this is the checkpoint itself: give another directory")
    if into.is_dir():
        foreign = sorted(path.name for path in into.iterdir() if not parts.is_part(path.name))
        if foreign:
            raise CheckpointError(f"{into} holds {foreign[0]}, which is no part of a checkpoint: give another name")
    elif into.exists():
        raise CheckpointError(f"{into} is a file: give another name")
