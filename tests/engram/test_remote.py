"""engram sessions and engram infer: models and sessions of a server, and of checkpoints."""

import csv
import io
import json
import subprocess
import sys

import numpy as np
import pytest

from engram.inputs import read_inputs
from tests.app.harness import running_server
from tests.engram.running import complaint, done
from tests.training import tiny

INPUTS = np.random.default_rng(0).integers(0, 2, (3, 10)).astype(np.float32)


@pytest.fixture(scope="module")
def server(few, tmp_path_factory):
    with running_server(data=tmp_path_factory.mktemp("server") / "data", checkpoints=few) as server:
        yield server


@pytest.fixture
def steps(tmp_path):
    file = tmp_path / "steps.json"
    file.write_text(json.dumps(INPUTS.tolist()))
    return file


@pytest.fixture
def sessions(server, capsys, monkeypatch):
    """Return a function that runs a command of engram sessions against the server, and returns what it printed."""
    monkeypatch.setenv("ENGRAM_URL", server.url)
    return lambda *words: done(capsys, "sessions", *words)


def test_session_is_stepped_forked_recorded_rewound_and_deleted(sessions, steps, capsys):
    name = sessions("open", "dnc-copy").strip()
    stepped = json.loads(sessions("step", name, "--input", steps, "--trace", "usage", "write_gate"))
    assert (stepped["step"], np.shape(stepped["trace"]["usage"])) == (3, (3, 32))
    fork = sessions("fork", name, "--step", 2).strip()
    recorded = [json.loads(line) for line in sessions("record", fork, "--trace", "usage").splitlines()]
    assert [line["step"] for line in recorded] == [1, 2]
    assert [line["outputs"] for line in recorded] == stepped["outputs"][:2]
    assert [line["trace"]["usage"] for line in recorded] == stepped["trace"]["usage"][:2]
    assert len(sessions("record", name, "--from", 1, "--to", 2).splitlines()) == 1
    assert sessions("rewind", name, 1) == f"{name}: at step 1\n"
    shown = {"id": name, "model": "dnc-copy", "memory_size": 32, "step": 1, "force": None}
    assert json.loads(sessions("show", name, "--json")) == shown
    assert [line.split() for line in sessions("list").splitlines()[:3]] == [
        ["id", "model", "slots", "step", "forced"],
        [name, "dnc-copy", "32", "1"],
        [fork, "dnc-copy", "32", "2"],
    ]
    assert [found["id"] for found in json.loads(sessions("list", "--limit", 1, "--json"))] == [name]
    assert sessions("delete", name) == f"{name}: deleted\n"
    assert f"session {name} is gone" in complaint(capsys, "sessions", "show", name)


def test_server_infers_as_the_checkpoint_does(server, few, steps, capsys):
    words = ["infer", "dnc-copy", "--input", steps, "--trace", "usage"]
    here, there = (
        json.loads(done(capsys, *words, *where)) for where in (["--checkpoints", few], ["--url", server.url])
    )
    assert here["steps"] == there["steps"] == 3
    assert here["outputs"] == there["outputs"]
    assert here["trace"] == there["trace"]
    table = done(capsys, "infer", few / "dnc-copy", "--input", steps, "--format", "csv")
    assert np.allclose([[float(cell) for cell in row] for row in csv.reader(io.StringIO(table))], here["outputs"])


def test_recording_is_piped_into_another_run(sessions, server, steps):
    name = sessions("open", "dnc-copy").strip()
    stepped = json.loads(sessions("step", name, "--input", steps))
    program = f"{sys.executable} -m engram"
    script = f"{program} sessions record {name} | {program} infer dnc-copy --url {server.url}"
    ran = subprocess.run(["sh", "-c", script], cwd=tiny.ROOT, capture_output=True, text=True)
    assert (json.loads(ran.stdout)["outputs"], ran.stderr) == (stepped["outputs"], "")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"[[1, 2], [3, 4]]", [[1, 2], [3, 4]]),
        (b'{"inputs": [[1, 2]]}', [[1, 2]]),
        (b"[1, 2, 3]", [[1], [2], [3]]),
        (b'[1, 2]\n\n{"step": 2, "inputs": [3, 4]}\n', [[1, 2], [3, 4]]),
        (b"\xef\xbb\xbfa,b\n1,2\n3,4.5\n", [[1, 2], [3, 4.5]]),
        (b"7\n8\n", [[7], [8]]),
    ],
)
def test_inputs_are_read_by_their_content(content, expected, tmp_path):
    (tmp_path / "inputs").write_bytes(content)
    assert read_inputs(tmp_path / "inputs").tolist() == expected


def test_inputs_of_an_array_file_are_read(tmp_path):
    np.save(tmp_path / "two.npy", INPUTS.astype(np.float64))
    assert np.array_equal(read_inputs(tmp_path / "two.npy"), INPUTS)
    np.save(tmp_path / "one.npy", np.array([1, 2]))
    assert read_inputs(tmp_path / "one.npy").tolist() == [[1], [2]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a step or more, each a list of numbers, got []"),
        (b"[]", "expected a step or more, each a list of numbers, got []"),
        (b"[[1, 2], [3]]", "step 2: expected 2 numbers, got [3]"),
        (b'[[1, "x"]]', "step 1: expected 2 numbers, got [1, 'x']"),
        (b"[[[1]]]", "step 1: expected 1 numbers, got [[1]]"),
        (b"[1, 2\n", "line 1: neither JSON nor JSON lines"),
        (b"1,2\n3,x\n", "line 2: expected numbers: could not convert string to float: 'x'"),
        (b"\xff\xfe\x00", "expected JSON, JSON lines, CSV or .npy, got other bytes"),
        (b"\x93NUMPY", "it is no .npy file of numbers"),
    ],
)
def test_inputs_that_cannot_be_read_are_named(content, message, tmp_path, capsys, few):
    (tmp_path / "inputs").write_bytes(content)
    assert message in complaint(capsys, "infer", few / "dnc-copy", "--input", tmp_path / "inputs")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dnc-cpy"], "ntm-repeat-copy. Did you mean dnc-copy?"),
        (["dnc-copy", "--trace", "usge"], "--trace usge: the model has the traces read_keys, "),
        (["lstm-copy", "--memory-size", "9"], "lstm-copy has no memory to resize"),
        (["dnc-copy", "--trace", "usage", "--format", "csv"], "--trace: CSV has the outputs only"),
        (["dnc-copy", "--url", "http://127.0.0.1:1", "--timeout", "0.1"], "gave no answer within 0.1 s"),
        (["dnc-copy", "--url", "127.0.0.1"], "url: expected http://HOST:PORT or https://HOST:PORT, got '127.0.0.1'"),
    ],
)
def test_inference_that_cannot_be_is_refused(words, message, few, steps, capsys):
    printed = complaint(capsys, "infer", *words, "--input", steps, "--checkpoints", few)
    assert message.format(few=few) in printed


def test_inputs_that_are_not_given_are_asked_for(few, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    assert "no inputs: give --input FILE" in complaint(capsys, "infer", few / "dnc-copy")


def test_inputs_of_another_size_are_refused_by_their_place(few, tmp_path, capsys):
    (tmp_path / "inputs.csv").write_text("1,2\n")
    printed = complaint(capsys, "infer", few / "dnc-copy", "--input", tmp_path / "inputs.csv")
    assert printed == "engram: inputs[0]: expected 10 numbers, got 2"


def test_client_that_is_not_installed_is_named_with_its_remedy(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "engram_client", None)
    assert complaint(capsys, "sessions", "list").endswith(
        "a server is reached by engram_client: in the checkout, pip install ./client"
    )


def test_server_that_wants_a_key_names_its_option(few, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("ENGRAM_KEY", raising=False)
    key = done(capsys, "keys", "create", "--data", tmp_path / "data").strip()
    with running_server(data=tmp_path / "data", checkpoints=few) as server:
        assert complaint(capsys, "sessions", "list", "--url", server.url).endswith("give it by --key or ENGRAM_KEY")
        assert done(capsys, "sessions", "list", "--url", server.url, "--key", key, "--json") == "[]\n"
        monkeypatch.setenv("ENGRAM_KEY", key)
        assert done(capsys, "sessions", "list", "--url", server.url, "--json") == "[]\n"
