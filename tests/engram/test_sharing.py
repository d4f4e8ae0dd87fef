"""engram push, pull and serve FROM: checkpoints from elsewhere, on the command line."""

import json
import os
import subprocess
import sys

import httpx
import pytest

from app.settings import SettingsError
from engram.commands.serve import _fetched
from models.manifest import read_manifest, sha256
from tests.engram.running import complaint, done
from tests.training import tiny
from tests.training.sharing.fake_hub import TOKEN, running_hub
from training.sharing.places import to_serve


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return tmp_path / "cache"


def test_archive_is_pushed_and_pulled_by_its_hash(capsys, checkpoint, tmp_path):
    archive = tmp_path / "mine.tar.gz"
    assert done(capsys, "push", checkpoint, archive) == f"{archive}: sha256 {sha256(archive)}\n"
    printed = done(capsys, "pull", archive, "--out", tmp_path / "models", "--sha256", sha256(archive), "--name", "mine")
    assert printed.splitlines()[0] == str(tmp_path / "models" / "mine")
    assert f"engram serve --checkpoints {tmp_path / 'models'}" in printed
    assert "was expected: nothing was unpacked" in complaint(
        capsys, "pull", archive, "--out", tmp_path / "others", "--sha256", "0" * 64
    )


def test_hub_is_named_by_its_url(capsys, cache, checkpoint, tmp_path):
    with running_hub() as hub:
        assert f"{hub.url}/me/tiny/commit/" in done(capsys, "push", checkpoint, "hf://me/tiny", "--hub", hub.url)
        pulled = done(capsys, "pull", "hf://me/tiny", "--out", tmp_path / "models", "--hub", hub.url)
    assert pulled.splitlines()[0] == str(tmp_path / "models" / "tiny")
    assert read_manifest(tmp_path / "models" / "tiny") == read_manifest(checkpoint)


def test_served_directory_is_that_of_the_source(cache, checkpoint):
    assert to_serve(str(checkpoint.parent)) == checkpoint.parent
    [one] = to_serve(str(checkpoint)).iterdir()
    assert one.name == checkpoint.name
    assert one.is_relative_to(cache)


def test_hub_that_is_lost_is_served_from_the_cache(cache, checkpoint, caplog):
    with running_hub() as hub:
        with pytest.raises(ValueError, match="no such repository"):
            to_serve("hf://me/tiny", hub.url)
        hub.repositories["me/tiny"] = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
        served = to_serve("hf://me/tiny", hub.url)
    assert to_serve("hf://me/tiny", hub.url) == served
    assert "serving what was pulled before" in caplog.text
    assert [path.name for path in served.iterdir()] == ["tiny"]


def test_source_and_checkpoints_together_are_refused(checkpoint):
    with pytest.raises(SettingsError, match=r"--checkpoints and .* both name models: give one of them"):
        _fetched(str(checkpoint), None, {"checkpoints": checkpoint.parent})


@pytest.mark.slow
def test_archive_is_served(capsys, cache, checkpoint, tmp_path):
    archive = tmp_path / "mine.tar.gz"
    done(capsys, "push", checkpoint, archive)
    words = ["serve", str(archive), "--port", "0", "--store", "memory", "--log-format", "json"]
    command = [sys.executable, "-m", "engram", *words]
    with subprocess.Popen(command, cwd=tiny.ROOT, stderr=subprocess.PIPE, text=True, env=dict(os.environ)) as server:
        try:
            url = next(found for line in server.stderr if (found := _url(line)))
            assert [model["name"] for model in httpx.get(f"{url}/models").json()] == [checkpoint.name]
        finally:
            server.terminate()
            server.stderr.read()


def _url(line):
    """Return the address in the line of the log that has it."""
    message = json.loads(line)["message"] if line.startswith("{") else ""
    return next((word.rstrip("/") for word in message.split() if word.startswith("http://127.0.0.1:")), None)
