"""The examples run as they stand, against a real server."""

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from models.manifest import read_manifest
from tests.app.harness import ROOT, Server, running_server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(data=tmp_path_factory.mktemp("examples") / "data") as server:
        yield server


def run(name: str, *arguments: str | Path) -> str:
    command = [sys.executable, str(ROOT / "examples" / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=250)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_over_http_copies(server):
    shown = run("over_http.py", server.url)
    assert "copied in one request: True" in shown
    assert "copied step by step: True" in shown


def test_over_websocket_copies_through_a_drop(server):
    shown = run("over_websocket.py", server.socket_url)
    assert "reconnected; the last frame carried out is" in shown
    assert "copied: True" in shown


def test_client_copies_forks_and_restores(server):
    shown = run("client.py", server.url)
    assert "copied: True" in shown
    assert "copied in a fork: True" in shown
    assert "copied elsewhere: True" in shown
    assert "steps on record: 8 of <Session " in shown
    assert len((ROOT / "examples" / "client.py").read_text().splitlines()) < 60


def test_trained_model_can_be_served(tmp_path):
    shown = run("train_a_model.py", tmp_path / "runs" / "small", "100")
    assert "update   100" in shown
    with running_server(data=tmp_path / "data", checkpoints=tmp_path / "runs") as server:
        assert [model["name"] for model in httpx.get(f"{server.url}/models").json()] == ["small"]


def test_text_classifier_is_trained_served_and_asked(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    out = tmp_path / "runs" / "sentences"
    shown = run("text_classifier.py", out, "will it snow in paris tonight or only rain", str(port))
    assert re.search(r"^split test .* \d/24 ", shown, re.MULTILINE)
    chances = [line.split() for line in shown.splitlines()[-4:]]
    assert sorted(label for label, _ in chances) == ["food", "music", "travel", "weather"]
    assert chances[0][0] == "weather"
    manifest = read_manifest(out)
    assert (manifest.config["output_at"], manifest.config["embedding"]["size"]) == ("last-step", 16)


def test_own_task_is_trained_exported_and_served(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shown = run("own_task.py", tmp_path / "runs" / "parity", str(port))
    assert "Validation: 0 wrong bits per sequence." in shown
    assert re.search(r"^length 100 .* 0/1000 ", shown, re.MULTILINE)
    assert "odd so far: [1, 1, 0, 1]" in shown
    assert {"metrics.jsonl", "model.onnx"} < {path.name for path in (tmp_path / "runs" / "parity").iterdir()}
    lines = (ROOT / "examples" / "own_task.py").read_text().splitlines()
    assert len(lines) < 60


def test_own_model_is_trained_exported_and_served(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shown = run("own_model.py", tmp_path / "runs" / "fast-weights", str(port))
    validation = float(re.search(r"^Validation: (\S+) wrong bits per sequence.$", shown, re.MULTILINE)[1])
    beyond = float(re.search(r"^pairs 8, overwrites 40 +- +(\S+) +32 ", shown, re.MULTILINE)[1])
    assert max(validation, beyond) < 0.1
    assert "key 1100 has the value 0 1 1 1" in shown
    manifest = read_manifest(tmp_path / "runs" / "fast-weights")
    assert (manifest.kind, manifest.state) == ("fast-weights", {"weights": [32, 32]})
    assert len((ROOT / "examples" / "own_model.py").read_text().splitlines()) < 80
