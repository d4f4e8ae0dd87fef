"""Laws over a table of all back ends, each with every kind of model that it can have."""

import pkgutil
import shutil
import weakref
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch

import app.backends
from app.backends.base import Array, Backend, BatchLost, RowsFailed, Slots, StateLost
from app.backends.fake import FakeBackend
from app.backends.fused import FusedBackend
from app.backends.onnx import OnnxBackend
from app.backends.torch import TorchBackend
from app.engine.arenas import Arenas
from models.artefact import load
from models.contract import schemas
from models.manifest import ONNX_FILE, read_manifest
from models.registry import build, model_config
from models.state import flatten
from tests.app.budgets import states
from tests.app.checkpoints import KINDS, WITH_MEMORY, make_checkpoint
from tests.app.harness import ROOT
from tests.models.identities import assert_traces_explain
from tests.slots import matching_slots, reordered
from tests.training.one_step import imported, several_dtypes
from training.checkpoint import save_model, write_manifest
from training.export import build_graph, export

pytestmark = pytest.mark.slow

CAPACITY = 6
GPU = "cuda" if torch.cuda.is_available() else "cpu"
"""The device of the back end for GPUs: without one, its kernels are interpreted."""
REAL = {"fused": FusedBackend, "onnx": OnnxBackend, "torch": TorchBackend}
if find_spec("triton"):  # for Linux; scripts/test installs it
    from app.backends.cuda import CudaBackend

    REAL["cuda"] = partial(CudaBackend, device=GPU)
BACKENDS = REAL | {"torch-on-cuda": partial(TorchBackend, device="cuda")}
ON_CUDA = [pytest.param(f"torch-on-cuda {kind}", marks=pytest.mark.cuda) for kind in KINDS if GPU == "cuda"]
NO_KERNEL = {"fused sparse", "cuda sparse", "cuda before"}
GRAPHS = ("batched", "rows", "loop")
"""The forms of imported graphs."""
TABLE = [
    "fake",
    *(f"{backend} {kind}" for backend in REAL for kind in KINDS if f"{backend} {kind}" not in NO_KERNEL),
    *(f"onnx {form}" for form in GRAPHS),
]
RESIZABLE = [entry for entry in TABLE if entry == "fake" or entry.split()[1] in WITH_MEMORY]


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    made = {kind: make_checkpoint(root / kind, kind) for kind in KINDS}
    return made | {form: make_graph(root / form, form) for form in GRAPHS}


def make_graph(directory: Path, form: str) -> Path:
    """Import a graph with leaves of three dtypes and a carried input in a form."""
    directory.mkdir()
    spec = """
    inputs = {x = {carry = 1}}
    state = {h = "h_out", count = {next = "count_out", initial = 3}, sum = "sum_out"}
    outputs = {y = {}}
    trace = {drive = {}}
    """
    imported(directory, several_dtypes(), f'form = "{form}"\n{spec}')
    return directory / "model"


@pytest.fixture(params=[*TABLE, *ON_CUDA])
def backend(request: pytest.FixtureRequest, directories: dict[str, Path]) -> Backend:
    return load_backend(request.param, directories)


@pytest.fixture(params=RESIZABLE)
def resizable(request: pytest.FixtureRequest, directories: dict[str, Path]) -> Backend:
    return load_backend(request.param, directories)


def load_backend(entry: str, directories: dict[str, Path]) -> Backend:
    if entry == "fake":
        return FakeBackend(capacity=CAPACITY, memory_size=8)
    name, kind = entry.split()
    return BACKENDS[name](directories[kind], CAPACITY)


def inputs_for(backend: Backend, rows: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((rows, backend.spec.input_size)).astype(np.float32)


def same(left: dict[str, Array], right: dict[str, Array], tolerance: float = 0) -> None:
    assert left.keys() == right.keys()
    for name, values in left.items():
        np.testing.assert_allclose(right[name], values, atol=tolerance, rtol=0, err_msg=name)


def test_table_has_every_back_end():
    modules = {module.name for module in pkgutil.iter_modules(app.backends.__path__)} - {
        "base",
        "graph",
        "in_place",
        "pages",
    }
    assert modules == {"fake", "cuda", *REAL}


def test_spec_is_what_the_back_end_gives(backend):
    slot = backend.open()
    state = backend.read(slot)
    outputs, traces = backend.step([slot], inputs_for(backend, 1), list(backend.spec.trace))
    assert {name: list(leaf.shape) for name, leaf in state.items()} == backend.spec.state
    assert all(isinstance(leaf, np.ndarray) for leaf in state.values()), "also of a leaf without axes"
    assert {name: list(values.shape[1:]) for name, values in traces.items()} == backend.spec.trace
    assert (outputs.shape, outputs.dtype) == ((1, backend.spec.output_size), np.float32)


def test_step_gives_only_the_traces_asked_for(backend):
    name = next(iter(backend.spec.trace), None)
    slot = backend.open()
    assert backend.step([slot], inputs_for(backend, 1))[1] == {}
    if name:
        assert list(backend.step([slot], inputs_for(backend, 1), [name])[1]) == [name]


@pytest.mark.parametrize(
    "entry", [f"{name} {kind}" for name in ("fused", "onnx") for kind in KINDS if f"{name} {kind}" not in NO_KERNEL]
)
def test_traces_at_every_step_are_those_of_torch(directories, entry):
    backend, torch = (load_backend(name, directories) for name in (entry, f"torch {entry.split()[1]}"))
    slot, other = backend.open(), torch.open()
    for t in range(4):
        torch.write(other, backend.read(slot))
        inputs = inputs_for(backend, 1, seed=t)
        traces, expected = (
            each.step([at], inputs, each.spec.trace)[1] for each, at in ((backend, slot), (torch, other))
        )
        same(expected, traces, 1e-5)


@pytest.mark.parametrize("entry", RESIZABLE[1:])
def test_traces_of_every_step_explain_it(directories, entry):
    backend, manifest = load_backend(entry, directories), read_manifest(directories[entry.split()[1]])
    config, slot = model_config(manifest.kind, manifest.config), backend.open()
    for t in range(4):
        before = {name: leaf[None] for name, leaf in backend.read(slot).items()}
        _, trace = backend.step([slot], inputs_for(backend, 1, seed=t), list(backend.spec.trace))
        after = {name: leaf[None] for name, leaf in backend.read(slot).items()}
        assert_traces_explain(config, before, after, trace, atol=1e-5)


EARLIER = {"dnc": ["read_modes", "usage"], "before": ["write_weights"], "ntm": []}
"""Traces that checkpoints of an earlier version have, by the kind of model."""


@pytest.fixture(scope="module")
def earlier(directories: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root, made = tmp_path_factory.mktemp("earlier"), {}
    for kind, named in EARLIER.items():
        made[kind] = Path(shutil.copytree(directories[kind], root / kind))
        model, manifest = load(directories[kind])
        fewer = replace(manifest, trace={trace: manifest.trace[trace] for trace in named})
        write_manifest(made[kind], fewer)
        (made[kind] / ONNX_FILE).write_bytes(build_graph(model, fewer).SerializeToString())
    return made


@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name in REAL for kind in EARLIER if f"{name} {kind}" not in NO_KERNEL]
)
def test_earlier_checkpoint_is_served_with_the_traces_it_has(directories, earlier, name, kind):
    complete, backend = (REAL[name](made[kind], CAPACITY) for made in (directories, earlier))
    assert list(backend.spec.trace) == EARLIER[kind]
    inputs = inputs_for(backend, 1)
    expected, traces = (each.step([each.open()], inputs, EARLIER[kind])[1] for each in (complete, backend))
    same(expected, traces, 1e-6)


def test_slots_stepped_together_are_as_if_stepped_alone(backend):
    together, alone = [backend.open() for _ in range(3)], [backend.open() for _ in range(3)]
    for t in range(4):
        inputs = inputs_for(backend, 3, seed=t)
        outputs, _ = backend.step(together, inputs)
        for row, slot in enumerate(alone):
            expected, _ = backend.step([slot], inputs[row : row + 1])
            np.testing.assert_allclose(outputs[row], expected[0], atol=1e-5)


def test_outputs_do_not_depend_on_the_order_of_slots(backend):
    slots = [backend.open() for _ in range(3)]
    inputs = inputs_for(backend, 3)
    forward, _ = backend.step(slots, inputs)
    for slot in slots:
        backend.write(slot, None)
    backward, _ = backend.step(slots[::-1], inputs[::-1].copy())
    np.testing.assert_allclose(backward[::-1], forward, atol=1e-5)


def test_step_leaves_other_slots_alone(backend):
    resting, stepped = backend.open(), backend.open()
    before = backend.read(resting)
    backend.step([stepped], inputs_for(backend, 1))
    same(before, backend.read(resting))


def test_read_and_write_are_inverse_and_copies(backend):
    first, second = backend.open(), backend.open()
    backend.step([first], inputs_for(backend, 1))
    state = backend.read(first)
    backend.write(second, state)
    same(state, backend.read(second))
    expected, _ = backend.step([first], inputs_for(backend, 1, seed=5))
    outputs, _ = backend.step([second], inputs_for(backend, 1, seed=5))
    np.testing.assert_allclose(outputs, expected, atol=1e-6)
    assert any((state[name] != leaf).any() for name, leaf in backend.read(first).items())


def test_copy_keeps_the_state_of_when_it_was_made(backend):
    slot = backend.open()
    backend.step([slot], inputs_for(backend, 1))
    expected, sent, kept = backend.read(slot), backend.copy(slot), backend.copy(slot)
    sent.send()
    backend.step([slot], inputs_for(backend, 1, seed=5))
    backend.close(slot)
    backend.open()
    for copied in (sent, kept, kept):
        same(expected, copied.read())


def test_slot_opened_with_a_state_continues_from_it(backend):
    slot = backend.open()
    backend.step([slot], inputs_for(backend, 1))
    same(backend.read(slot), backend.read(backend.open(backend.read(slot))))


def test_slot_opened_again_starts_fresh(backend):
    slot = backend.open()
    fresh = backend.read(slot)
    backend.step([slot], inputs_for(backend, 1))
    backend.close(slot)
    assert backend.open() == slot
    same(fresh, backend.read(slot))


def test_write_of_none_is_a_reset(backend):
    slot = backend.open()
    fresh = backend.read(slot)
    backend.step([slot], inputs_for(backend, 1))
    backend.write(slot, None)
    same(fresh, backend.read(slot))


def test_arena_opens_every_slot_once_and_then_refuses(backend):
    assert sorted(backend.open() for _ in range(CAPACITY)) == list(range(CAPACITY))
    with pytest.raises(MemoryError, match=f"all {CAPACITY} slots"):
        backend.open()
    backend.close(3)
    assert backend.open() == 3


def test_arena_that_grows_keeps_its_states(backend):
    slots = [backend.open()]
    backend.step(slots, inputs_for(backend, 1))
    before = backend.read(slots[0])
    slots += [backend.open() for _ in range(CAPACITY - 1)]
    same(before, backend.read(slots[0]))
    backend.step(slots, inputs_for(backend, CAPACITY))


def test_slot_is_not_taken_if_growing_fails():
    def refuse(capacity: int) -> None:
        raise MemoryError

    slots = Slots(4)
    assert [slots.take(lambda capacity: None)] == [0]
    with pytest.raises(MemoryError):
        slots.take(refuse)
    assert [slots.take(lambda capacity: None) for _ in range(3)] == [1, 2, 3]


def test_capacity_doubles_up_to_the_maximum():
    slots, capacities = Slots(5), []
    for _ in range(5):
        slots.take(capacities.append)
    assert capacities == [1, 2, 4, 5]


@pytest.mark.parametrize("memory_size", [3, 20])
def test_resized_back_end_has_that_memory_size(resizable, memory_size):
    test_spec_is_what_the_back_end_gives(resizable.resized(memory_size))
    resized = resizable.resized(memory_size)
    assert resized.spec.memory_size == memory_size
    assert resized.read(resized.open())["memory"].shape[0] == memory_size
    assert resizable.spec.memory_size == 8


def test_resized_back_end_and_its_origin_are_independent(resizable):
    first, second = resizable, resizable.resized(20)
    slots = [first.open(), second.open()]
    assert slots == [0, 0]
    before = first.read(0)
    second.step([0], inputs_for(second, 1))
    same(before, first.read(0))
    after = second.read(0)
    first.step([0], inputs_for(first, 1))
    same(after, second.read(0))


def test_back_end_resized_and_back_computes_the_same(resizable):
    again = resizable.resized(20).resized(8)
    slots = [backend.open() for backend in (resizable, again)]
    inputs = inputs_for(resizable, 1)
    outputs, expected = again.step(slots[1:], inputs)[0], resizable.step(slots[:1], inputs)[0]
    np.testing.assert_array_equal(outputs, expected)


FORCES = {
    "dnc": '{"free_gates":[null,0.25],"read_modes":[null,[0.5,0.25,0.25]],"write_gate":[0.0]}',
    "ntm": '{"interpolation_gate":[1.0,null,0.5],"shift_weights":[null,[1.0,0.0,0.0],null]}',
    "before": '{"interpolation_gate":[null,0.0,1.0]}',
}


@pytest.mark.parametrize("kind", FORCES)
def test_forced_fused_steps_are_those_of_forced_torch(directories, kind):
    backends = [back_end(directories[kind], 4).forced(FORCES[kind]) for back_end in (FusedBackend, TorchBackend)]
    ours, reference = backends
    slots = [[backend.open() for _ in range(3)] for backend in backends]
    for t in range(20):
        inputs, names = inputs_for(ours, 3, seed=t), list(ours.spec.trace)
        outputs, traces = ours.step(slots[0], inputs, names)
        expected, wanted = reference.step(slots[1], inputs, names)
        np.testing.assert_allclose(outputs, expected, atol=1e-4)
        same(traces, wanted, tolerance=1e-4)
    for name, gate in ours.spec.gates.items():
        is_forced = ~np.isnan(gate)
        np.testing.assert_array_equal(traces[name][0][is_forced], gate[is_forced].astype(np.float32))


def outputs_of(backend: Backend, steps: int = 5) -> Array:
    slot = backend.open()
    return np.concatenate([backend.step([slot], inputs_for(backend, 1, seed))[0] for seed in range(steps)])


@pytest.mark.parametrize("entry", [f"{name} {kind}" for name in ("fused", "torch") for kind in FORCES])
def test_forced_back_end_leaves_its_origin_free(directories, entry):
    expected = outputs_of(load_backend(entry, directories))
    origin = load_backend(entry, directories)
    forced = origin.forced(FORCES[entry.split()[1]])
    assert (outputs_of(forced) != expected).any()
    np.testing.assert_array_equal(outputs_of(origin), expected)
    np.testing.assert_array_equal(outputs_of(forced.forced(None)), expected)
    np.testing.assert_array_equal(
        outputs_of(forced.resized(8)), outputs_of(origin.resized(8).forced(forced.spec.force))
    )


def test_graph_refuses_to_force_gates_with_the_remedy(directories):
    with pytest.raises(ValueError, match="--backend fused or torch"):
        OnnxBackend(directories["dnc"], 1).forced(FORCES["dnc"])


def test_resized_back_end_ends_with_its_last_slot(resizable):
    arenas = Arenas(resizable, states())
    slot = arenas.open(20)
    resized = weakref.ref(arenas.of(slot))
    arenas.of(slot).step([slot.number], inputs_for(resizable, 1))
    arenas.close(slot)
    assert resized() is None


@pytest.mark.parametrize("entry", RESIZABLE[1:])
def test_spec_of_any_size_is_that_of_the_model(directories, entry):
    name, kind = entry.split()
    model, _ = load(directories[kind])
    spec = REAL[name](directories[kind], 1).spec.resized(50)
    assert (spec.state, spec.trace) == schemas(model, 50)
    leaves = flatten(model.initial_state(1, 50)).values()
    assert spec.state_bytes == sum(leaf.element_size() * leaf.numel() for leaf in leaves)


def test_slot_given_back_twice_is_refused():
    slots = Slots(2)
    slots.give_back(slots.take(lambda capacity: None))
    with pytest.raises(KeyError):
        slots.give_back(0)


@pytest.mark.parametrize(
    ("kind", "memory_size"), [*((kind, None) for kind in KINDS), *((kind, 50) for kind in WITH_MEMORY)]
)
def test_onnx_equals_torch_from_a_fresh_state(directories, kind, memory_size):
    """Compare the outputs of a whole run, and one step from the same state."""
    onnx, reference = OnnxBackend(directories[kind], 4), TorchBackend(directories[kind], 4)
    if memory_size:
        onnx, reference = onnx.resized(memory_size), reference.resized(memory_size)
    slots = [[backend.open() for _ in range(3)] for backend in (onnx, reference)]
    for t in range(20):
        inputs = inputs_for(onnx, 3, seed=t)
        outputs, _ = onnx.step(slots[0], inputs)
        np.testing.assert_allclose(outputs, reference.step(slots[1], inputs)[0], atol=1e-4)
    onnx.write(slots[0][0], reference.read(slots[1][0]))
    inputs = inputs_for(onnx, 1)
    (outputs, traces), (expected, _) = onnx.step(slots[0][:1], inputs), reference.step(slots[1][:1], inputs)
    np.testing.assert_allclose(outputs, expected, atol=1e-5)
    assert traces == {}


def test_fresh_memory_is_written_at_the_lowest_location(directories):
    """At the first write every usage is zero: a sort that is not stable would allocate another location."""
    written = []
    for backend in (OnnxBackend(directories["dnc"], 1), TorchBackend(directories["dnc"], 1)):
        _, traces = backend.step([backend.open()], np.ones((1, 4), np.float32), ["allocation_weights"])
        written.append(int(traces["allocation_weights"][0, 0].argmax()))
    assert written == [0, 0]


@pytest.mark.parametrize("memory_size", [8, 50, 100])
def test_back_ends_pick_the_same_locations_from_the_same_state(directories, memory_size):
    """Locations are of six sorts: those of one sort tie, and usages of two sorts are more than rounding apart."""
    backends = [back_end(directories["dnc"], CAPACITY).resized(memory_size) for back_end in REAL.values()]
    first, random = backends[0].read(backends[0].open()), np.random.default_rng(memory_size)
    for _ in range(20):
        sort = random.integers(0, 6, memory_size)
        usage, read_weights, write_weights = random.random((6, 6)), random.random((2, 6)), random.random((1, 6))
        leaves = {"usage": usage[0], "read_weights": read_weights / 2, "write_weights": write_weights / 2}
        state = first | {name: leaf[..., sort].astype(np.float32) for name, leaf in leaves.items()}
        inputs, traces = inputs_for(backends[0], 1), ["usage", "allocation_weights"]
        steps = [backend.step([backend.open(state)], inputs, traces)[1] for backend in backends]
        assert np.diff(np.unique(steps[0]["usage"])).min() > 1e-6
        by_usage = [np.argsort(step["usage"][0], kind="stable").tolist() for step in steps]
        assert by_usage == by_usage[:1] * len(backends)
        for step in steps:
            allocation = step["allocation_weights"][0, 0]
            np.testing.assert_allclose(allocation, steps[0]["allocation_weights"][0, 0], atol=1e-6)
            assert (np.diff(allocation[by_usage[0]]) <= 0).all()
        for backend in backends:
            backend.close(0)


def test_back_ends_differ_by_exchanged_locations_only():
    """Of two locations whose usages are within rounding of each other, a back end may allocate either first."""
    backends = [back_end(ROOT / "checkpoints/dnc-associative-recall", 1) for back_end in REAL.values()]
    slots = [backend.open() for backend in backends]
    for inputs in np.random.default_rng(3).standard_normal((30, 1, 8)).astype(np.float32):
        outputs = [backend.step([slot], inputs)[0] for backend, slot in zip(backends, slots, strict=True)]
        ours, *others = (backend.read(slot) for backend, slot in zip(backends, slots, strict=True))
        for theirs, their_outputs in zip(others, outputs[1:], strict=True):
            np.testing.assert_allclose(their_outputs, outputs[0], atol=1e-4)
            order = matching_slots(theirs, ours)
            same(ours, {name: reordered(leaf, name, order) for name, leaf in theirs.items()}, tolerance=1e-4)


def spoiled(state: dict[str, Array], value: float) -> dict[str, Array]:
    """Return a state in which every number is `value`, but for whole numbers."""
    return {name: np.full_like(leaf, value) if leaf.dtype.kind == "f" else leaf for name, leaf in state.items()}


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38, 1e30, 1e10])
def test_row_of_a_spoiled_state_does_not_change_others(backend, value):
    """At every step, the other rows have the same bits as beside a fresh state."""
    slots, others = [backend.open() for _ in range(3)], [backend.open() for _ in range(3)]
    backend.write(slots[1], spoiled(backend.read(slots[1]), value))
    for t in range(4):
        inputs = inputs_for(backend, 3, seed=t)
        expected, _ = backend.step(others, inputs)
        try:
            outputs, _ = backend.step(slots, inputs)
        except RowsFailed as failure:
            assert failure.rows == {1}
            outputs = failure.outputs
            backend.write(slots[1], None)
        np.testing.assert_array_equal(outputs[[0, 2]], expected[[0, 2]])
    for row in (0, 2):
        same(backend.read(others[row]), backend.read(slots[row]))


@pytest.mark.parametrize("name", REAL)
def test_usage_that_overflows_fails_its_row(name, directories):
    """Whichever leaf of an uploaded state overflows it, and also if the outputs stay finite."""
    backend = REAL[name](directories["dnc"], 1)
    slot = backend.open()
    first = backend.read(slot)
    for leaf in first:
        for value in (3e38, -3e38, -1e25):
            backend.write(slot, first | {leaf: np.full_like(first[leaf], value)})
            for t in range(4):
                try:
                    backend.step([slot], inputs_for(backend, 1, seed=t))
                except RowsFailed:
                    break
                assert np.isfinite(backend.read(slot)["usage"]).all(), (leaf, value, t)


@pytest.mark.parametrize("name", ["fake", *REAL])
def test_overflowing_row_fails_alone_and_keeps_its_state(name, tmp_path):
    backend = overflowing(name, tmp_path)
    slots = [backend.open() for _ in range(3)]
    inputs = np.zeros((3, 4), np.float32)
    inputs[1] = 3e38
    before = spoiled(backend.read(slots[1]), 3e38)
    backend.write(slots[1], before)
    with pytest.raises(RowsFailed) as failure:
        backend.step(slots, inputs, list(backend.spec.trace))
    assert (failure.value.rows, failure.value.lost) == ({1}, set())
    assert np.isfinite(failure.value.outputs[[0, 2] if name == "fake" else [0, 1, 2]]).all()
    same(before, backend.read(slots[1]))


def overflowing(name: str, directory: Path) -> Backend:
    """Return a back end whose model's state overflows with large inputs, but its outputs, from a sigmoid, do not."""
    if name == "fake":
        return FakeBackend(4)
    values = {
        "input_size": 4,
        "output_size": 2,
        "output_activation": "sigmoid",
        "controller": {"kind": "basic-rnn", "hidden_size": 8, "activation": "relu"},
    }
    model = build("rnn", values)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.1)
    save_model(directory / "x", model, "rnn", model_config("rnn", values), {"name": "none"}, {})
    export(directory / "x")
    return REAL[name](directory / "x", 4)


def test_lost_slot_is_refused_until_it_is_written(backend):
    lost, other = backend.open(), backend.open()
    with pytest.raises((KeyError, TypeError)):
        backend.write(lost, {})
    read, copy = partial(backend.read, lost), partial(backend.copy, lost)
    for refused in (read, copy, partial(backend.step, [other, lost], inputs_for(backend, 2))):
        with pytest.raises(StateLost, match=f"slots \\[{lost}\\]"):
            refused()
    backend.write(lost, None)
    same(backend.read(other), backend.read(lost))
    backend.step([lost], inputs_for(backend, 1))


def test_lost_slot_that_is_freed_opens_fresh(backend):
    fresh, lost = backend.read(backend.open()), backend.open()
    with pytest.raises((KeyError, TypeError)):
        backend.write(lost, {})
    backend.close(lost)
    assert backend.open() == lost
    same(fresh, backend.read(lost))


def test_state_that_does_not_fit_takes_no_slot(backend):
    with pytest.raises((KeyError, TypeError)):
        backend.open({})
    assert sorted(backend.open() for _ in range(CAPACITY)) == list(range(CAPACITY))


@pytest.mark.parametrize("name", REAL)
def test_step_that_fails_midway_loses_its_batch(name, directories, monkeypatch):
    """The traces cannot be allocated, or the next states not be written: some states may have changed."""
    backend = REAL[name](directories["dnc"], CAPACITY)
    slots = [backend.open() for _ in range(2)]
    if copied := {"cuda": "_trace", "fused": "leaf"}.get(name):
        monkeypatch.setattr(backend._steps, copied, lambda *_: bytearray(2**62))
    else:
        *_, last = backend._arena  # a view that can be read, but not written
        leaf = backend._arena[last]
        backend._arena[last] = leaf[:1].expand_as(leaf) if name == "torch" else np.broadcast_to(leaf[:1], leaf.shape)
    with pytest.raises(BatchLost):
        backend.step(slots, inputs_for(backend, 2), ["usage"])
    for slot in slots:
        with pytest.raises(StateLost):
            backend.read(slot)


@pytest.mark.skipif("cuda" not in REAL, reason="Triton is for Linux")
def test_state_is_read_if_the_device_is_full(directories, monkeypatch):
    backend = REAL["cuda"](directories["dnc"], CAPACITY)
    slot = backend.open()
    backend.step([slot], inputs_for(backend, 1))
    expected = backend.read(slot)
    monkeypatch.setattr(backend._steps, "copy", Mock(side_effect=MemoryError))
    copied = backend.copy(slot)
    backend.step([slot], inputs_for(backend, 1))
    same(expected, copied.read())


@pytest.mark.skipif("cuda" not in REAL, reason="Triton is for Linux")
def test_frame_without_memory_for_its_inputs_changes_nothing(directories, monkeypatch):
    backend = REAL["cuda"](directories["dnc"], CAPACITY)
    slots, inputs = [backend.open(), backend.open()], inputs_for(backend, 6).reshape(2, 3, -1)
    backend.step(slots, inputs[:, 0])
    before = [backend.read(slot) for slot in slots]
    with monkeypatch.context() as patch:
        patch.setattr("kernels.gpu.batch.on_host", Mock(side_effect=MemoryError))
        with pytest.raises(MemoryError):
            backend.run(slots, inputs)
    for slot, state in zip(slots, before, strict=True):
        same(state, backend.read(slot))
    backend.run(slots, inputs)


def test_lost_batch_loses_its_slots_only():
    slots = Slots(4)
    taken = [slots.take(lambda capacity: None) for _ in range(3)]
    assert isinstance(slots.lost_batch(taken[:2]), BatchLost)
    slots.check(taken[2:])
    for slot in taken[:2]:
        with pytest.raises(StateLost):
            slots.check([slot])


@pytest.mark.parametrize(
    ("name", "allocates"), [("fused", "_workspace"), *([("cuda", "_batch")] if "cuda" in REAL else [])]
)
def test_batch_without_memory_for_its_arrays_loses_nothing(directories, monkeypatch, name, allocates):
    backend = load_backend(f"{name} dnc", directories)
    slots = [backend.open() for _ in range(2)]
    before = backend.read(slots[1])
    monkeypatch.setattr(backend._steps, allocates, lambda *_: (_ for _ in ()).throw(MemoryError()))
    for call in (lambda: backend.step(slots, inputs_for(backend, 2)), lambda: backend.run(slots, np.zeros((2, 3, 4)))):
        with pytest.raises(MemoryError):
            call()
    same(before, backend.read(slots[1]))
