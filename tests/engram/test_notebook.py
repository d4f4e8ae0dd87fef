"""A notebook's way in: models of checkpoints in this process."""

import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

import engram
from app.backends.fake import FakeBackend
from app.catalogue import InputFormat
from app.errors import EngramError
from models.manifest import ManifestError
from tests.app.harness import CHECKPOINTS

CARD = {"name": "m", "kind": "lstm", "parameters": 1, "input_size": 1, "output_size": 1, "vocabulary_size": None}
CARD |= {"output_activation": "sigmoid", "output_groups": 1}


@pytest.fixture(scope="module")
def model():
    return engram.load("dnc-copy")


def run_of(outputs, targets=None, **card):
    inputs = np.zeros((len(outputs), 1), np.float32)
    targets = None if targets is None else np.array(targets, np.float32)
    steps = np.arange(1, len(outputs) + 1)
    return engram.Run(CARD | card, steps, inputs, np.array(outputs), {}, targets)


def test_names_of_the_way_in_are_the_packages():
    assert set(engram.__all__) <= set(dir(engram))
    assert {name: getattr(engram, name).__name__ for name in engram.__all__} == {name: name for name in engram.__all__}
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        engram.lode()


@pytest.mark.parametrize("kind", [engram.Model, engram.Session, engram.Run, engram.Comparison])
def test_page_has_every_member(kind):
    text = (CHECKPOINTS.parent / "docs/notebooks.md").read_text()
    names = {name for name in (*vars(kind), *kind.__annotations__) if not name.startswith("_")}
    assert {name for name in names if not re.search(rf"[`.]{name}[`(\[]", text)} == set()


def test_sample_of_the_task_is_answered_without_errors(model):
    run = model.run(model.sample(seed=1))
    assert (run.error, run.unit, run.steps[-1]) == (0, "wrong bits", len(run.inputs))
    assert {name: values.shape[1:] for name, values in run.trace.items()} == {
        "write_weights": (1, 32),
        "read_weights": (1, 32),
        "usage": (32,),
    }
    assert np.array_equal(np.isnan(run.targets).all(axis=1), np.isnan(run.errors))


def test_back_ends_compute_the_same(model):
    sample = model.sample(seed=2)
    runs = [engram.load("dnc-copy", backend=backend).run(sample, "usage") for backend in ("onnx", "torch", "fused")]
    assert [run.card["backend"] for run in runs] == ["onnx", "torch", "fused"]
    for run in runs[:2]:
        assert np.allclose(run.outputs, runs[2].outputs, atol=1e-5)
        usages = (np.sort(one.trace["usage"], axis=1) for one in (run, runs[2]))  # rounding decides which is first
        assert np.allclose(*usages, atol=1e-5)


def test_session_goes_on_where_it_was(model):
    sample, session = model.sample(seed=3), model.session()
    parts = [session.run(sample.inputs[:4]), session.run(sample.inputs[4:])]
    assert np.array_equal(np.concatenate([part.outputs for part in parts]), model.run(sample).outputs)
    assert (parts[1].steps[0], session.step, session.state()["usage"].shape) == (5, len(sample.inputs), (32,))


def test_memory_size_and_gates_are_those_asked_for():
    small = engram.load("dnc-copy", memory_size=5)
    run = small.run(small.sample(seed=1), ["write_gate", "usage"], force={"write_gate": [0.0]})
    assert (run.trace["usage"].shape[1], run.memory_size, run.force) == (5, 5, {"write_gate": [0.0]})
    assert not run.trace["write_gate"].any()
    assert run.error > 0


@pytest.mark.parametrize(("wrong", "error"), [([3e38, 0], EngramError), ([7, 0], KeyboardInterrupt)])
def test_steps_that_fail_leave_the_session_as_it_was(model, wrong, error):
    def interrupt(inputs):
        if inputs[0, 0] == 7:
            raise KeyboardInterrupt

    backend = FakeBackend(before_step=interrupt)
    adding = engram.Model(replace(model._loaded, inputs=InputFormat(2), spec=backend.spec), backend, 10)
    session = adding.session()
    session.run([[3e38, 1]])
    with pytest.raises(error) as raised:
        session.run([[0, 1], wrong])
    assert error is KeyboardInterrupt or "inputs[1]" in str(raised.value)
    assert (session.step, session.run([[0, 1]]).outputs[0, 1], session.step) == (1, 2, 2)


def test_threads_take_turns_at_a_model(model):
    """The back end fails, or gives a thread the state of another, if two are in it at once."""
    inside = []

    def step(inputs):
        inside.append(True)
        others.wait(0.01)  # time for another thread to come in
        inside.pop()
        assert not inside

    others = threading.Event()
    backend = FakeBackend(before_step=step)
    adding = engram.Model(replace(model._loaded, inputs=InputFormat(2), spec=backend.spec), backend, 10)
    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(lambda value: adding.run([[1, value]] * 2), range(8)))
    assert [run.outputs[1, 1] for run in runs] == [2 * value for value in range(8)]


def test_session_that_nobody_has_frees_its_state(model):
    backend = FakeBackend(capacity=1)
    adding = engram.Model(replace(model._loaded, inputs=InputFormat(2), spec=backend.spec), backend, 10)
    assert [adding.run([[1, value]]).outputs[0, 1] for value in (1, 2)] == [1, 2]


def test_checkpoint_is_found_by_name_and_as_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert engram.load("lstm-copy").name == engram.load(CHECKPOINTS / "lstm-copy").name == "lstm-copy"
    (tmp_path / "own" / "lstm-copy").mkdir(parents=True)
    for path in (CHECKPOINTS / "gru-dyck").iterdir():
        (tmp_path / "own" / "lstm-copy" / path.name).symlink_to(path)
    monkeypatch.setenv("ENGRAM_CHECKPOINTS", "own")
    assert engram.load("lstm-copy").card["task"]["name"] == "dyck"
    with pytest.raises(ManifestError, match=r"no checkpoint 'x': .*, or one of dnc-associative-recall"):
        engram.load("x")


@pytest.mark.parametrize(
    ("call", "fault"),
    [
        (lambda model: model.run([[1, 2]]), r"inputs\[0\]: expected 10 numbers, got 2"),
        (lambda model: model.run("abc"), "inputs: expected real numbers: got <U3"),
        (lambda model: model.run(np.zeros((1, 10), complex)), "inputs: expected real numbers: got complex128"),
        (lambda model: model.run(np.ma.masked_all((1, 10))), "inputs: expected real numbers: got masked values"),
        (lambda model: model.run([[0] * 10, [0]]), "inputs: expected real numbers: .*inhomogeneous"),
        (lambda model: model.run(np.zeros((1, 3, 10))), r"got the shape \[1, 3, 10\]: run sequences one by one"),
        (lambda model: model.run([[0] * 10], targets=np.zeros((1, 8), complex)), "targets: expected real numbers"),
        (lambda model: model.run([[0] * 10], targets=[[0] * 8], mask=["a"]), "mask: expected real numbers"),
        (lambda model: model.run([[0] * 10], force=[1]), r"force: expected gates by name, got \[1\]"),
        (lambda model: model.sample(1.5), "seed: expected a whole number, got 1.5"),
        (lambda _: engram.load("dnc-copy", memory_size=1.5), "memory_size: expected a whole number, got 1.5"),
        (lambda _: engram.load("dnc-copy", memory_size=True), "memory_size: expected a whole number, got True"),
        (lambda _: engram.load("dnc-copy", memory_size=2**70), "memory_size 1180591620717411303424 is not available"),
        (lambda model: engram.compare(model), "expected a list of runs or models, got <Model dnc-copy"),
        (lambda model: model.run([[float("nan")] * 10]), r"inputs\[0\]\[0\]: expected a finite number"),
        (lambda model: model.run([[0] * 10], ["mood"]), "dnc-copy has no trace 'mood'"),
        (lambda model: model.run([[0] * 10], targets=[1]), r"targets: expected shape \[1, 8\], .* got \[1\]"),
        (lambda model: model.run([[0] * 10], mask=[1]), "mask: there are no targets"),
        (lambda model: model.sample(-1), "seed: expected a whole number from 0"),
        (lambda model: model.sample(length=0), "length"),
        (lambda model: model.session({"mood": [1]}), "there is no gate 'mood'"),
        (lambda _: engram.load("lstm-copy", memory_size=3), "lstm-copy has no memory to resize"),
        (lambda _: engram.load("lstm-copy", backend="magic"), "setting backend: .* got 'magic'"),
        (lambda model: engram.compare([model, engram.load("gru-dyck")]), "dnc-copy has input_size 10, and gru-dyck 1"),
        (lambda model: engram.compare([model, run_of([[0]])]), "runs alone or models alone"),
        (lambda _: engram.compare([]), "expected a list of runs or models, got"),
        (lambda _: engram.compare([run_of([[0]]), run_of([[0], [0]])]), "other inputs than the first"),
    ],
)
def test_wrong_call_is_refused_with_the_place(model, call, fault):
    with pytest.raises((EngramError, ValueError), match=fault):
        call(model)


def test_errors_are_counted_where_answers_are_due():
    due, nan = [[1, 0], [np.nan, np.nan], [0, 1]], float("nan")
    bits = run_of([[0.9, 0.6], [0, 0], [0.1, 0.9]], due)
    assert (np.array_equal(bits.errors, [1, nan, 0], equal_nan=True), bits.error) == (True, 1)
    classes = run_of([[0.4, 0.6], [0, 0], [0.1, 0.9]], due, output_activation="softmax")
    assert (np.array_equal(classes.errors, [1, nan, 0], equal_nan=True), classes.error) == (True, 1)
    values = run_of([[1, 2], [0, 0], [0, 1]], due, output_activation="identity")
    assert (np.array_equal(values.errors, [2, nan, 0], equal_nan=True), values.error) == (True, 1)
    assert (run_of([[1]]).errors, run_of([[1]]).error) == (None, None)


def test_figure_of_a_run_has_a_panel_for_each_array(model):
    figure = model.run(model.sample(seed=1)).plot()
    titles = [axis.get_title(loc="left") for axis in figure.axes if axis.get_title(loc="left")]
    assert titles == [
        *("input", "target (grey: no answer is asked for)", "output (0 wrong bits)"),
        *("write weights, head 0", "read weights, head 0", "usage"),
    ]
    tokens = engram.load("gru-dyck").run([0, 1, 1]).plot()
    assert [text.get_text() for text in tokens.axes[0].texts] == ["0", "1", "1"]


def test_comparison_is_one_table_and_one_figure(model):
    sample = model.sample(seed=1, length=2)
    gated = model.run(sample, force={"write_gate": [0.0]})
    compared = engram.compare([model.run(sample), gated])
    frame = compared.to_pandas()
    assert frame["model"].tolist() == ["dnc-copy (1)", "dnc-copy (2)"]
    assert (frame["wrong bits"][0], frame["wrong bits"][1]) == (0, gated.error)
    [legend] = [axis.get_legend() for axis in compared.plot().axes if axis.get_legend()]
    assert [text.get_text() for text in legend.get_texts()] == compared.names
    html = compared._repr_html_()
    assert html.count("<table") == html.count("<img") == html.count("data:image/png;base64,iVBOR") == 1
    models = engram.compare([model, engram.load("lstm-copy")], seed=4, length=3)
    assert [(row["model"], row["steps"]) for row in models.table] == [("dnc-copy", 8), ("lstm-copy", 8)]


def test_frame_has_a_row_for_each_step(model):
    run = model.run(model.sample(seed=1), "read_weights")
    frame = run.to_pandas()
    assert (frame.index.name, len(frame), list(frame.columns[[0, -1]])) == (
        *("step", len(run.inputs)),
        ["inputs[0]", "read_weights[0][31]"],
    )
    assert np.array_equal(frame["targets[2]"], run.targets[:, 2], equal_nan=True)


def test_notebook_shows_names_as_text(tmp_path):
    (tmp_path / "<script>").symlink_to(CHECKPOINTS / "lstm-copy")
    model = engram.load(tmp_path / "<script>")
    assert model.name == "<script>"
    run = run_of([[0]], name="<script>")
    for html in (model._repr_html_(), run._repr_html_(), engram.compare([run])._repr_html_()):
        assert html.startswith("<table")
        assert "<script" not in html


def test_missing_packages_are_named_with_the_remedy(model, monkeypatch):
    run = model.run(model.sample(seed=1))
    monkeypatch.delitem(sys.modules, "engram.notebook.figures", raising=False)
    monkeypatch.delattr("engram.notebook.figures", raising=False)
    for name in ("matplotlib.figure", "pandas"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match="pip install matplotlib"):
        run.plot()
    with pytest.raises(ModuleNotFoundError, match="pip install pandas"):
        run.to_pandas()
    assert "<img" not in engram.compare([run])._repr_html_()
