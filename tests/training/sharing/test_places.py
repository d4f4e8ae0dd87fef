"""Checkpoints pushed to directories and archives, and pulled from there and from web servers."""

import functools
import http.server
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from models.artefact import load
from models.manifest import MANIFEST_FILE, WEIGHTS_FILE, ManifestError, sha256
from tests.training import tiny
from training.files import TRAINING_FILE, CheckpointError
from training.sharing.places import pull, push


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    directory = tmp_path_factory.mktemp("made") / "tiny"
    tiny.checkpoint(directory, "dnc")
    return directory


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_checkpoint_goes_into_a_directory_and_back(checkpoint, tmp_path):
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    assert push(checkpoint, str(shelf)) == str(shelf / "tiny")
    assert push(checkpoint, str(tmp_path / "named")) == str(tmp_path / "named")
    assert contents(shelf / "tiny") == contents(tmp_path / "named")
    assert TRAINING_FILE not in contents(shelf / "tiny")
    pulled = pull(str(shelf / "tiny"), tmp_path / "models", "mine")
    assert contents(pulled) == contents(shelf / "tiny")
    load(pulled)


def test_archive_is_pulled_by_its_hash(checkpoint, tmp_path):
    path = tmp_path / "tiny.tar.gz"
    line = push(checkpoint, str(path))
    assert line == f"{path}: sha256 {sha256(path)}"
    pulled = pull(str(path), tmp_path / "models", expected=sha256(path).upper())
    assert pulled == tmp_path / "models" / "tiny"
    load(pulled)
    with pytest.raises(CheckpointError, match=f"its SHA-256 is {sha256(path)}, but {'0' * 64} was expected"):
        pull(str(path), tmp_path / "others", expected="0" * 64)
    assert list((tmp_path / "others").iterdir()) == []


@pytest.fixture
def web(tmp_path):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_archive_of_a_web_server_is_pulled(checkpoint, tmp_path, web, capfd):
    path, seen = tmp_path / "tiny.tar.gz", []
    push(checkpoint, str(path))
    pulled = pull(f"{web}/tiny.tar.gz", tmp_path / "models", show=lambda *counts: seen.append(counts))
    assert contents(pulled) == {name: data for name, data in contents(checkpoint).items() if name != TRAINING_FILE}
    assert seen[-1] == (path.stat().st_size, path.stat().st_size)
    with pytest.raises(CheckpointError, match=r"/none\.tar\.gz: the server answered 404"):
        pull(f"{web}/none.tar.gz", tmp_path / "models")
    with pytest.raises(CheckpointError, match=r"expected the URL of an archive NAME\.tar\.gz"):
        pull(f"{web}/tiny", tmp_path / "models")
    with pytest.raises(CheckpointError, match=r"http://127\.0\.0\.1:9/a\.tar\.gz: .*refused"):
        pull("http://127.0.0.1:9/a.tar.gz", tmp_path / "models")
    assert [child.name for child in (tmp_path / "models").iterdir()] == ["tiny"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1e3\r\n\r\n", "not a whole .tar.gz archive"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "the connection ended after 0 of 9 bytes"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n", "a.tar.gz: "),
        (b"HTTP/1.1 99999 OK\r\n\r\n", "a.tar.gz: "),
        (b"\0" * 100, "a.tar.gz: "),
    ],
)
def test_web_server_that_speaks_no_http_is_refused(tmp_path, answer, message):
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as pool:

        def serve():
            connection, _ = listening.accept()
            with connection:
                connection.recv(2**16)
                connection.sendall(answer)

        served = pool.submit(serve)
        with pytest.raises(CheckpointError, match=message):
            pull(f"http://127.0.0.1:{listening.getsockname()[1]}/a.tar.gz", tmp_path)
        served.result()
    assert list(tmp_path.iterdir()) == []


def test_address_that_is_none_is_refused(tmp_path):
    for address in ("http://[::1/a.tar.gz", "http://a b/a.tar.gz", "http://127.0.0.1:port/a.tar.gz"):
        with pytest.raises(CheckpointError, match=r"a\.tar\.gz: "):
            pull(address, tmp_path)


def test_pull_replaces_a_checkpoint_as_a_whole(checkpoint, tmp_path):
    old = tmp_path / "models" / "tiny"
    tiny.checkpoint(old, "ntm")
    (old / TRAINING_FILE).unlink()
    (old / "old.png").touch()
    pull(str(checkpoint), tmp_path / "models")
    assert sha256(old / WEIGHTS_FILE) == sha256(checkpoint / WEIGHTS_FILE)
    assert not (old / "old.png").exists()


def test_pull_keeps_what_would_be_lost(checkpoint, tmp_path):
    run = tmp_path / "tiny"
    tiny.checkpoint(run, "ntm")
    before = contents(run)
    with pytest.raises(CheckpointError, match=f"tiny holds {TRAINING_FILE}, which is no part of a checkpoint"):
        pull(str(checkpoint), tmp_path)
    with pytest.raises(CheckpointError, match="this is the checkpoint itself"):
        push(run, str(run))
    assert contents(run) == before


def test_damaged_checkpoint_is_neither_pushed_nor_pulled(checkpoint, tmp_path):
    damaged = tmp_path / "damaged"
    push(checkpoint, str(damaged))
    (damaged / WEIGHTS_FILE).write_bytes(b"")
    for place in ("there", "there.tar.gz"):
        with pytest.raises(ManifestError, match="the file is damaged"):
            push(damaged, str(tmp_path / place))
    with pytest.raises(ManifestError, match="the file is damaged"):
        pull(str(damaged), tmp_path / "models")
    with pytest.raises(ManifestError, match=MANIFEST_FILE):
        pull(str(tmp_path / "nothing"), tmp_path / "models")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged", "models"]
    assert list((tmp_path / "models").iterdir()) == []


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "", "a\nb", "a\x1b[31m"])
def test_name_that_is_none_of_a_directory_is_refused(checkpoint, tmp_path, name):
    with pytest.raises(CheckpointError, match="cannot be the name of a checkpoint"):
        pull(str(checkpoint), tmp_path / "models", name)
    assert not (tmp_path / "models").exists()


def test_push_to_the_web_or_hash_of_directory_is_refused(checkpoint, tmp_path):
    with pytest.raises(CheckpointError, match=r"a web server takes no checkpoint: give a directory"):
        push(checkpoint, "https://example.org/tiny.tar.gz")
    with pytest.raises(CheckpointError, match="only an archive has a SHA-256"):
        pull(str(checkpoint), tmp_path, expected="0" * 64)


def test_sharing_needs_no_torch():
    program = "import sys, training.sharing.places; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=tiny.ROOT, check=True)
