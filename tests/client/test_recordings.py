"""Recordings as arrays, tables and figures, and in files."""

import asyncio
import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from engram_client import Card, Recorded, Recording, Result, Stepped
from tests.app.harness import ROOT
from tests.client.inputs import sequence
from tests.client.scripted import lines, ok, scripted

HEADS = np.random.default_rng(1).dirichlet(np.ones(5), (4, 2)).astype(np.float32)
RECORDING = Recording(
    np.arange(3, 7), sequence(4), sequence(4, 1)[:, :3], {"usage": sequence(4, 2)[:, :5], "read_weights": HEADS}
)


def same(one, other):
    pairs = [(one.steps, other.steps), (one.inputs, other.inputs), (one.outputs, other.outputs)]
    pairs += [(values, other.trace[name]) for name, values in one.trace.items()]
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in pairs)


def test_recording_of_its_steps_is_itself():
    assert same(Recording.of(RECORDING), RECORDING)
    assert np.array_equal(np.asarray(RECORDING), RECORDING.outputs)
    assert (len(Recording.of([])), Recording.of([]).outputs.shape) == (0, (0, 0))


def test_recording_comes_back_from_its_file_to_the_bit(tmp_path):
    path = tmp_path / "past.ndjson"
    RECORDING.save(path)
    assert same(Recording.load(path), RECORDING)
    assert [found.name for found in tmp_path.iterdir()] == ["past.ndjson"]


def test_recording_that_cannot_be_written_leaves_the_file_before(tmp_path):
    path = tmp_path / "past.ndjson"
    RECORDING.save(path)
    broken = dataclasses.replace(RECORDING, trace={"usage": np.array([[1], [2], [object()], [3]])})
    with pytest.raises(TypeError):
        broken.save(path)
    assert same(Recording.load(path), RECORDING)
    assert [found.name for found in tmp_path.iterdir()] == ["past.ndjson"]


def test_recording_of_the_server_is_read_from_a_file(tmp_path):
    (tmp_path / "past.ndjson").write_bytes(lines([1.0], [0.5]).content)
    past = Recording.load(tmp_path / "past.ndjson")
    assert (past.inputs.tolist(), past.outputs.tolist(), past.steps.tolist()) == ([[1], [0.5]], [[1.5], [2.5]], [1, 2])
    assert past.trace["gate"].tolist() == [[0.25], [0.25]]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("{", r"past.ndjson:2: expected a step, .* got '\{'"),
        ("[]", "past.ndjson:2: expected a step"),
        ("[" * 9999, "past.ndjson:2: expected a step"),
        (
            f'{{"step": {2**63}, "inputs": [1], "outputs": [1.5], "trace": {{}}}}',
            "past.ndjson:2: expected a whole number",
        ),
        ('{"step": 2, "inputs": [1], "outputs": [[1]], "trace": {}}', "past.ndjson:2: expected a whole number"),
        (
            '{"step": 2, "inputs": [1, 2], "outputs": [1.5], "trace": {"gate": [1]}}',
            r"step 2: expected .'inputs': \[1\]",
        ),
        (
            '{"error": {"status": 503, "code": "store_failed", "detail": "disk"}}',
            "past.ndjson:2: .* breaks off here: disk",
        ),
    ],
)
def test_damaged_recording_is_refused_at_its_line(line, fault, tmp_path):
    (tmp_path / "past.ndjson").write_text(lines([1.0]).content.decode() + "\n" + line + "\n")
    with pytest.raises(ValueError, match=fault):
        Recording.load(tmp_path / "past.ndjson")


def test_results_are_data_frames_with_named_columns():
    frame = RECORDING.to_pandas()
    assert frame.index.tolist() == [3, 4, 5, 6]
    assert list(frame.columns[[0, 10, 13, 18, -1]]) == [
        *("inputs[0]", "outputs[0]", "usage[0]", "read_weights[0][0]", "read_weights[1][4]"),
    ]
    assert np.array_equal(frame["read_weights[1][3]"], HEADS[:, 1, 3])
    outputs = sequence(2)
    assert Stepped(outputs, {}, 9).to_pandas().index.tolist() == [8, 9]
    assert Result(outputs, {}, 2).to_pandas()["outputs[9]"].tolist() == outputs[:, 9].tolist()


def test_figure_has_a_part_for_each_array_and_head():
    figure = RECORDING.plot()
    titles = [axis.get_title(loc="left") for axis in figure.axes if axis.get_title(loc="left")]
    assert titles == ["inputs", "outputs", "usage", "read weights, head 0", "read weights, head 1"]
    heads = figure.axes[4].images[0]
    assert np.array_equal(heads.get_array(), HEADS[:, 1].T)
    assert heads.get_extent() == [2.5, 6.5, -0.5, 4.5]
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_array_of_very_many_heads_has_one_part():
    many = dataclasses.replace(RECORDING, trace={"seen": np.zeros((4, 30, 5), np.float32)}).plot()
    assert [axis.images[0].get_array().shape[0] for axis in many.axes[:3]] == [10, 3, 150]


def test_nothing_to_draw_is_an_error():
    with pytest.raises(ValueError, match="Recording of no step: there is nothing to draw"):
        Recording.of([]).plot()


def test_session_draws_the_weightings_that_its_model_has():
    card = {
        "name": "m",
        "kind": "dnc",
        "task": {},
        "input_size": 1,
        "output_size": 1,
        "trace": {"usage": [1], "a": [1]},
    }
    where = ok({"oldest": 0, "step": 700})
    session, script = scripted(ok(card), where, lines([1.0], [2.0]))
    figure = asyncio.run(session.plot())
    assert dict(script.requests[-1].query) == {"from": 200, "to": 700, "trace": "usage"}
    assert figure.get_suptitle() == "Recording of steps 1 to 2"


def test_notebook_shows_text_of_others_as_text():
    hostile = "<script>alert(1)</script>"
    card = Card(hostile, "dnc", {"name": hostile}, 1, 1, trace={hostile: [1]})
    session, _ = scripted()
    session.model = hostile
    traced = Recording.of([Recorded(1, np.ones(1), np.ones(1), {hostile: np.ones(1)})])
    for shown in (card, session, traced, Result(np.ones((1, 1)), traced.trace, 1), Stepped(np.ones((1, 1)), {}, 1)):
        html = shown._repr_html_()
        assert html.startswith("<table")
        assert "<script" not in html
        assert len(html) < 5000
    assert "&lt;script&gt;" in card._repr_html_()


def test_missing_packages_are_named_with_the_remedy():
    code = """
import sys
sys.modules["matplotlib.figure"] = sys.modules["pandas"] = None
import numpy as np
from engram_client import Result
result = Result(np.ones((1, 1)), {}, 1)
for call in (result.plot, result.to_pandas):
    try:
        call()
    except ModuleNotFoundError as error:
        print(error)
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert [line.rpartition(": ")[2] for line in printed.splitlines()] == [
        "pip install matplotlib",
        "pip install pandas",
    ]
