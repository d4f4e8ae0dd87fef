"""Checkpoints in an archive: the same bytes each time, and nothing unpacked but its parts."""

import gzip
import io
import tarfile

import pytest

from models.manifest import MANIFEST_FILE, WEIGHTS_FILE
from tests.training import tiny
from training.files import TRAINING_FILE, CheckpointError
from training.sharing import archive
from training.sharing.archive import MAX_HEADER_BYTES
from training.sharing.parts import MAX_FILES, MAX_SMALL_BYTES


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    directory = tmp_path_factory.mktemp("made") / "tiny"
    tiny.checkpoint(directory, "rnn")
    (directory / "notes.txt").write_text("of the owner")
    return directory


def entry(name, size=0, kind=tarfile.REGTYPE, link=""):
    made = tarfile.TarInfo(name)
    made.size, made.type, made.linkname = size, kind, link
    return made


def packed(path, *entries):
    with tarfile.open(path, "w:gz") as file:
        for made in entries:
            file.addfile(made, io.BytesIO(bytes(made.size)))
    return path


def test_archive_has_the_parts_alone_and_the_same_bytes_again(checkpoint, tmp_path):
    first, second = tmp_path / "a.tar.gz", tmp_path / "b.tgz"
    archive.write(checkpoint, "tiny", first)
    for path in checkpoint.iterdir():
        path.touch()
    archive.write(checkpoint, "tiny", second)
    assert first.read_bytes() == second.read_bytes()
    into = tmp_path / "into"
    into.mkdir()
    assert archive.read(first, into) == "tiny"
    found = {path.name: path.read_bytes() for path in into.iterdir()}
    assert {MANIFEST_FILE, WEIGHTS_FILE} <= found.keys()
    assert not {TRAINING_FILE, "notes.txt"} & found.keys()
    assert all((checkpoint / name).read_bytes() == content for name, content in found.items())


@pytest.mark.parametrize(
    "entries",
    [
        [entry("../manifest.json")],
        [entry("/manifest.json")],
        [entry("manifest.json")],
        [entry("tiny/../../manifest.json")],
        [entry("tiny/deep/manifest.json")],
        [entry(".hidden/manifest.json")],
        [entry("tiny/pickle.pkl")],
        [entry("tiny/training.safetensors")],
        [entry("tiny/.png")],
        [entry("tiny/manifest.json", kind=tarfile.SYMTYPE, link="/etc/passwd")],
        [entry("tiny/manifest.json", kind=tarfile.LNKTYPE, link="tiny/README.md")],
        [entry("tiny", kind=tarfile.DIRTYPE)],
        [entry("tiny/model.safetensors", kind=tarfile.GNUTYPE_SPARSE)],
        [entry("tiny\x1b[31m/manifest.json")],
        [entry("tiny/\r.png")],
    ],
)
def test_entry_that_is_no_part_is_refused(tmp_path, entries):
    path, into = packed(tmp_path / "bad.tar.gz", *entries), tmp_path / "into"
    into.mkdir()
    with pytest.raises(CheckpointError, match=r"bad\.tar\.gz: .* is no part of a checkpoint"):
        archive.read(path, into)
    assert list(into.iterdir()) == []
    assert not (tmp_path / MANIFEST_FILE).exists()


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([entry("a/README.md"), entry("b/README.md")], "expected one directory, got a, b"),
        ([entry(f"a/{n}.png") for n in range(MAX_FILES + 1)], f"at most {MAX_FILES} files"),
        ([entry("a/README.md", MAX_SMALL_BYTES + 1)], "README.md has 67,108,865 bytes"),
        ([entry("a/README.md"), entry("a/README.md")], "a/README.md is in the archive twice"),
        ([], "the archive is empty"),
    ],
)
def test_archive_beyond_the_limits_is_refused(tmp_path, entries, message):
    path, into = packed(tmp_path / "bad.tar.gz", *entries), tmp_path / "into"
    into.mkdir()
    with pytest.raises(CheckpointError, match=message):
        archive.read(path, into)


def test_cut_or_foreign_file_is_no_archive(checkpoint, tmp_path):
    whole = tmp_path / "a.tar.gz"
    archive.write(checkpoint, "tiny", whole)
    data = whole.read_bytes()
    for number, damaged in enumerate(
        (data[:-100], data[: len(data) // 2], b"PK\x03\x04", b"", data[:200] + b"x" + data[201:])
    ):
        path, into = tmp_path / f"{number}.tar.gz", tmp_path / f"into{number}"
        path.write_bytes(damaged)
        into.mkdir()
        with pytest.raises(CheckpointError, match=rf"{number}\.tar\.gz: not a whole .tar.gz archive"):
            archive.read(path, into)


@pytest.mark.parametrize(
    "headers",
    [
        {"GNU.sparse.map": "a,b"},
        {"GNU.sparse.size": "b"},
        {"comment": "x" * MAX_HEADER_BYTES},
    ],
)
def test_header_that_tarfile_cannot_bear_is_refused(tmp_path, headers):
    made = entry("tiny/README.md")
    made.pax_headers = headers
    path, into = packed(tmp_path / "bad.tar.gz", made), tmp_path / "into"
    into.mkdir()
    with pytest.raises(CheckpointError, match=r"bad\.tar\.gz: not a whole .tar.gz archive"):
        archive.read(path, into)


def test_thousand_headers_of_one_file_are_refused(tmp_path):
    header = entry("x", 4, tarfile.GNUTYPE_LONGNAME).tobuf() + b"tiny".ljust(512, b"\0")
    path, into = tmp_path / "bad.tar.gz", tmp_path / "into"
    path.write_bytes(gzip.compress(header * 1000))
    into.mkdir()
    with pytest.raises(CheckpointError, match=r"not a whole .tar.gz archive"):
        archive.read(path, into)
