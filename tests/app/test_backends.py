"""Laws over a table of all back ends, each with every kind of model that it can have."""

import pkgutil
import weakref
from pathlib import Path

import numpy as np
import pytest

import app.backends
from app.backends.base import Array, Backend, Slots
from app.backends.fake import FakeBackend
from app.backends.fused import FusedBackend
from app.backends.onnx import OnnxBackend
from app.backends.torch import TorchBackend
from app.engine.arenas import Arenas
from app.errors import NonFiniteOutput
from models.artefact import load
from models.contract import schemas
from models.state import flatten
from tests.app.checkpoints import KINDS, WITH_MEMORY, make_checkpoint

CAPACITY = 6
REAL = {"fused": FusedBackend, "onnx": OnnxBackend, "torch": TorchBackend}
NO_KERNEL = {"fused sparse"}
TABLE = ["fake", *(f"{backend} {kind}" for backend in REAL for kind in KINDS if f"{backend} {kind}" not in NO_KERNEL)]
RESIZABLE = [entry for entry in TABLE if entry == "fake" or entry.split()[1] in WITH_MEMORY]


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    return {kind: make_checkpoint(root / kind, kind) for kind in KINDS}


@pytest.fixture(params=TABLE)
def backend(request: pytest.FixtureRequest, directories: dict[str, Path]) -> Backend:
    return load_backend(request.param, directories)


@pytest.fixture(params=RESIZABLE)
def resizable(request: pytest.FixtureRequest, directories: dict[str, Path]) -> Backend:
    return load_backend(request.param, directories)


def load_backend(entry: str, directories: dict[str, Path]) -> Backend:
    if entry == "fake":
        return FakeBackend(capacity=CAPACITY, memory_size=8)
    name, kind = entry.split()
    return REAL[name](directories[kind], CAPACITY)


def inputs_for(backend: Backend, rows: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((rows, backend.spec.input_size)).astype(np.float32)


def same(left: dict[str, Array], right: dict[str, Array], tolerance: float = 0) -> None:
    assert left.keys() == right.keys()
    for name, values in left.items():
        np.testing.assert_allclose(right[name], values, atol=tolerance, rtol=0, err_msg=name)


def test_table_has_every_back_end():
    modules = {module.name for module in pkgutil.iter_modules(app.backends.__path__)} - {"base", "graph"}
    assert modules == {"fake", *REAL}


def test_spec_is_what_the_back_end_gives(backend):
    slot = backend.open()
    state = backend.read(slot)
    outputs, traces = backend.step([slot], inputs_for(backend, 1), list(backend.spec.trace))
    assert {name: list(leaf.shape) for name, leaf in state.items()} == backend.spec.state
    assert {name: list(values.shape[1:]) for name, values in traces.items()} == backend.spec.trace
    assert (outputs.shape, outputs.dtype) == ((1, backend.spec.output_size), np.float32)


def test_step_gives_only_the_traces_asked_for(backend):
    name = next(iter(backend.spec.trace), None)
    slot = backend.open()
    assert backend.step([slot], inputs_for(backend, 1))[1] == {}
    if name:
        assert list(backend.step([slot], inputs_for(backend, 1), [name])[1]) == [name]


def test_slots_stepped_together_are_as_if_stepped_alone(backend):
    together, alone = [backend.open() for _ in range(3)], [backend.open() for _ in range(3)]
    for t in range(4):
        inputs = inputs_for(backend, 3, seed=t)
        outputs, _ = backend.step(together, inputs)
        for row, slot in enumerate(alone):
            expected, _ = backend.step([slot], inputs[row : row + 1])
            np.testing.assert_allclose(outputs[row], expected[0], atol=1e-5)


def test_slots_do_not_depend_on_their_order(backend):
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


def test_open_with_a_state_goes_on_from_it(backend):
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


def test_write_of_nothing_is_a_reset(backend):
    slot = backend.open()
    fresh = backend.read(slot)
    backend.step([slot], inputs_for(backend, 1))
    backend.write(slot, None)
    same(fresh, backend.read(slot))


def test_arena_hands_out_every_slot_once_and_then_refuses(backend):
    assert sorted(backend.open() for _ in range(CAPACITY)) == list(range(CAPACITY))
    with pytest.raises(MemoryError, match=f"all {CAPACITY} slots"):
        backend.open()
    backend.close(3)
    assert backend.open() == 3


def test_arena_grows_with_the_slots_in_use_and_keeps_what_is_in_them(backend):
    slots = [backend.open()]
    backend.step(slots, inputs_for(backend, 1))
    before = backend.read(slots[0])
    slots += [backend.open() for _ in range(CAPACITY - 1)]
    same(before, backend.read(slots[0]))
    backend.step(slots, inputs_for(backend, CAPACITY))


def test_slots_that_cannot_be_had_are_not_taken():
    def refuse(room: int) -> None:
        raise MemoryError

    slots = Slots(4)
    assert [slots.take(lambda room: None)] == [0]
    with pytest.raises(MemoryError):
        slots.take(refuse)
    assert [slots.take(lambda room: None) for _ in range(3)] == [1, 2, 3]


def test_room_doubles_up_to_the_capacity():
    slots, rooms = Slots(5), []
    for _ in range(5):
        slots.take(rooms.append)
    assert rooms == [1, 2, 4, 5]


@pytest.mark.parametrize("memory_size", [3, 20])
def test_resized_back_end_has_a_memory_of_that_size(resizable, memory_size):
    test_spec_is_what_the_back_end_gives(resizable.resized(memory_size))
    resized = resizable.resized(memory_size)
    assert resized.spec.memory_size == memory_size
    assert resized.read(resized.open())["memory"].shape[0] == memory_size
    assert resizable.spec.memory_size == 8


def test_resized_back_end_and_its_origin_leave_each_other_alone(resizable):
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


def test_resized_back_end_is_let_go_with_its_last_slot(resizable):
    arenas = Arenas(resizable, 2**20)
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


def test_slots_given_back_twice_are_refused():
    slots = Slots(2)
    slots.give_back(slots.take(lambda room: None))
    with pytest.raises(KeyError):
        slots.give_back(0)


@pytest.mark.parametrize(
    ("kind", "memory_size"), [*((kind, None) for kind in KINDS), *((kind, 50) for kind in WITH_MEMORY)]
)
def test_onnx_equals_torch_from_a_fresh_state(directories, kind, memory_size):
    """Run for run by their outputs; step for step by their whole states."""
    onnx, torch = OnnxBackend(directories[kind], 4), TorchBackend(directories[kind], 4)
    if memory_size:
        onnx, torch = onnx.resized(memory_size), torch.resized(memory_size)
    slots = [[backend.open() for _ in range(3)] for backend in (onnx, torch)]
    for t in range(20):
        inputs = inputs_for(onnx, 3, seed=t)
        outputs, _ = onnx.step(slots[0], inputs)
        np.testing.assert_allclose(outputs, torch.step(slots[1], inputs)[0], atol=1e-4)
    onnx.write(slots[0][0], torch.read(slots[1][0]))
    inputs = inputs_for(onnx, 1)
    (outputs, traces), (expected, _) = onnx.step(slots[0][:1], inputs), torch.step(slots[1][:1], inputs)
    np.testing.assert_allclose(outputs, expected, atol=1e-5)
    assert traces == {}


def test_fresh_slots_tie_to_the_lowest_in_both(directories):
    """On the first write every usage is zero: a sort that is not stable would allocate another slot."""
    written = []
    for backend in (OnnxBackend(directories["dnc"], 1), TorchBackend(directories["dnc"], 1)):
        _, traces = backend.step([backend.open()], np.ones((1, 4), np.float32), ["allocation_weights"])
        written.append(int(traces["allocation_weights"][0, 0].argmax()))
    assert written == [0, 0]


@pytest.mark.parametrize("name", ["fake", "torch"])
def test_step_that_overflows_changes_no_slot(name, tmp_path):
    huge = np.full((2, 4), 3e38, np.float32)
    huge[0] = 0
    backend = (
        FakeBackend(4, before_step=None)
        if name == "fake"
        else TorchBackend(make_checkpoint(tmp_path / "x", scale=1e30), 4)
    )
    slots = [backend.open(), backend.open()]
    if name == "fake":
        backend.step(slots, huge)
    before = [backend.read(slot) for slot in slots]
    with pytest.raises(NonFiniteOutput):
        backend.step(slots, huge)
    for slot, state in zip(slots, before, strict=True):
        same(state, backend.read(slot))
