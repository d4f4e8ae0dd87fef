"""The fused kernels against the torch models that say what they compute, in float64, one step from the same state."""

import copy
import ctypes
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.forces import GATES
from kernels import plan
from kernels.layout import FUNCTIONS
from kernels.library import library
from kernels.step import FusedStep
from kernels.support import NoKernel, is_bounded, not_fused
from kernels.traces import HeadTrace
from models.cells import (
    ACTIVATIONS,
    BasicRNNConfig,
    DropoutConfig,
    FeedForwardConfig,
    GRUConfig,
    LSTMConfig,
    StackConfig,
)
from models.contract import schemas, unroll
from models.registry import config_values
from models.rnn import RNNConfig
from models.state import flatten, map_leaves, unflatten
from tests.models.catalogue import CATALOGUE, KINDS, lived_in_state, make_from, random_inputs
from tests.models.drawn import any_model

TOLERANCE = 1e-5
"""Relative to the largest value where that is above 1: float32 against float64."""

LEAVES = {"read_weights", "write_weights", "read_vectors", "usage"}
"""Traces that are leaves of the state."""

COVERED = [name for name, config in CATALOGUE.items() if not_fused(KINDS[type(config)], config_values(config)) is None]


@pytest.fixture(autouse=True)
def little_work_is_shared_too(monkeypatch):
    monkeypatch.setattr(plan, "LEAST_PER_THREAD", 1)


def fused_of(model, rooms, memory_size=None, threads=1):
    kind, values = KINDS[type(model.config)], config_values(model.config)
    weights = {name: weight.detach().numpy() for name, weight in model.state_dict().items()}
    size = model.memory_size if memory_size is None else memory_size
    fused = FusedStep(kind, values, weights, schemas(model, size)[0], size, threads)
    fused.grow(rooms)
    return fused


def rows_of(state, row):
    return {name: leaf[row].detach().numpy() for name, leaf in flatten(state).items()}


def states_of(fused, slots, like):
    """Return the states in some slots, in float64, as the model has them."""
    rows = [fused.read(slot) for slot in slots]
    leaves = {name: torch.from_numpy(np.stack([row[name] for row in rows])).double() for name in flatten(like)}
    return unflatten(leaves, like)


def differences(actual, expected):
    """Return how far each row is, as it is or sorted: slots whose usages are within rounding may swap places."""
    ours, theirs = (np.asarray(values).reshape(len(values), -1) for values in (actual, expected))
    in_order, in_rank = np.abs(ours - theirs).max(1), np.abs(np.sort(ours) - np.sort(theirs)).max(1)
    return np.minimum(in_order, in_rank) / np.maximum(1, np.abs(theirs).max(1))


def assert_near(actual, expected, name, rounded=None, tolerance=TOLERANCE):
    """Assert that values are within the tolerance, or three times as near as torch comes in float32."""
    allowed = tolerance if rounded is None else max(tolerance, 3 * differences(rounded, expected).max())
    assert differences(actual, expected).max() <= allowed, name


@torch.no_grad()
def assert_steps_near(model, state, sequence, gates=None, make_step=fused_of):
    """Assert that every step of the kernel is the one that the model takes in float64 from the same state.

    The tolerance grows with inputs beyond 100: a sum of large products that cancel is rounded as they are.
    """
    tolerance = TOLERANCE * max(1.0, float(sequence.abs().max()) / 100)
    size = state.memory.shape[1] if model.memory_size else None
    exact, slots = copy.deepcopy(model).double(), [2, 0, 3][: sequence.shape[1]]
    fused = make_step(model, 4, size)
    if gates is not None:
        model, exact = (each.forced(drawn_tensors(gates, each)) for each in (model, exact))
        fused = fused.forced(gates)
        fused.grow(4)
    for row, slot in enumerate(slots):
        fused.write(slot, rows_of(state, row))
    like = exact.initial_state(1, size)
    for inputs in sequence:
        before = states_of(fused, slots, like)
        expected, after, trace = exact.step(inputs.double(), before)
        outputs, traces = fused.step(slots, inputs.numpy(), trace.keys() - LEAVES)
        rounded, rounded_after, _ = model.step(inputs, map_leaves(torch.Tensor.float, before))
        assert_near(outputs, exact.activate(expected), "outputs", model.activate(rounded), tolerance)
        for name, leaf in flatten(after).items():
            assert_near(fused.leaf(name, slots), leaf, name, flatten(rounded_after)[name], tolerance)
        for name in trace.keys() - LEAVES:
            assert traces[name].shape == trace[name].shape, name
            assert_near(traces[name], trace[name], name, tolerance=tolerance)


def drawn_gates(model, seed):
    """Return values for half of the elements of each gate of a model, and for half of the heads of its read modes."""
    shapes, random = schemas(model)[1], np.random.default_rng(seed)
    known = GATES.get(KINDS[type(model.config)], ())
    gates = {name: random.random(shapes[name]) for name in known if name in shapes}
    for gate in gates.values():
        gate /= gate.sum(1, keepdims=True) if gate.ndim == 2 else 1
        gate[random.random(len(gate)) < 0.5] = np.nan
    return gates


def drawn_tensors(gates, model):
    dtype = next(model.parameters()).dtype
    return {name: torch.tensor(gate, dtype=dtype) for name, gate in gates.items()}


def test_most_of_the_table_is_covered():
    assert len(COVERED) > 35
    assert {KINDS[type(CATALOGUE[name])] for name in COVERED} == {"dnc", "ntm", "rnn"}


@pytest.mark.parametrize("start", ["fresh", "lived-in"])
@pytest.mark.parametrize("name", COVERED)
def test_kernel_takes_the_steps_of_the_model(name, start):
    model = make_from(CATALOGUE[name])
    state = model.initial_state(3) if start == "fresh" else lived_in_state(model, 3)
    assert_steps_near(model, state, random_inputs(model, 8, 3))


@pytest.mark.parametrize("name", [name for name in COVERED if KINDS[type(CATALOGUE[name])] != "rnn"])
def test_kernel_forces_the_gates_of_the_model(name):
    model = make_from(CATALOGUE[name])
    gates = drawn_gates(model, seed=len(name))
    assert len(gates) >= 2
    assert_steps_near(model, lived_in_state(model, 3), random_inputs(model, 8, 3), gates)


def test_forced_gate_is_in_the_trace():
    model = make_from(CATALOGUE["dnc-2-read-3-write-heads"])
    forced = fused_of(model, 1).forced({"write_gate": np.array([0.0, np.nan, 1.0])})
    forced.grow(1)
    forced.write(0, rows_of(model.initial_state(1), 0))
    _, traces = forced.step([0], random_inputs(model, 1, 1)[0].numpy(), ["write_gate"])
    first, free, last = traces["write_gate"][0]
    assert (first, last) == (0, 1)
    assert 0 < free < 1
    assert not forced.leaf("write_weights", [0])[0, 0].any()


def test_steps_of_other_sizes_and_forces_share_the_weights():
    model = make_from(CATALOGUE["dnc"])
    origin = fused_of(model, 0)
    resized = origin.resized(schemas(model, 9)[0], 9)
    for other in (resized, resized.forced({"write_gate": np.zeros(1)}), resized.forced({})):
        assert other.memory_size == 9
        assert np.shares_memory(other._packed.values, origin._packed.values)
    assert origin.memory_size == model.memory_size


@settings(max_examples=100, deadline=None, derandomize=True)
@given(any_model(), st.sampled_from([0.0, 1.0, 1e3]), st.booleans(), st.integers(0, 1000))
def test_kernel_takes_the_steps_of_any_model(config, scale, lived_in, seed):
    torch.manual_seed(seed)
    model = make_from(config, spread=0.3)
    state = lived_in_state(model, 2) if lived_in else model.initial_state(2)
    assert_steps_near(model, state, scale * random_inputs(model, 2, 2))


@pytest.mark.parametrize(
    "name",
    [
        "dnc-2-read-3-write-heads",
        "dnc-stack",
        "dnc-skip-connections",
        "ntm-2-read-2-write-heads",
        "ntm-before-controller-stack",
        "ntm-programs-before-controller",
        "rnn-gru",
    ],
)
def test_row_has_the_same_bits_whoever_is_beside_it(name):
    model = make_from(CATALOGUE[name])
    many, few = fused_of(model, 70), fused_of(model, 9)
    state, sequence = lived_in_state(model, 66), random_inputs(model, 4, 66).numpy()
    order = np.random.default_rng(0).permutation(66)
    for row, slot in enumerate(order):
        many.write(slot + 4, rows_of(state, row))
    for row in range(7):
        few.write(row + 2, rows_of(state, row))
    for inputs in sequence:
        together, _ = many.step(list(order + 4), inputs)
        alone = [few.step([row + 2], inputs[row : row + 1])[0][0] for row in range(7)]
        assert np.array_equal(together[:7], np.stack(alone))
    for row in range(7):
        ours, theirs = few.read(row + 2), many.read(order[row] + 4)
        assert all(np.array_equal(ours[leaf], theirs[leaf]) for leaf in ours)


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(any_model(largest_memory=40), st.integers(2, 30), st.data())
def test_row_of_any_model_has_its_bits_in_any_company(config, rows, data):
    model = make_from(config)
    state, sequence = lived_in_state(model, rows), random_inputs(model, 3, rows).numpy()
    chosen = data.draw(st.lists(st.integers(0, rows - 1), min_size=1, unique=True))
    slots = data.draw(st.permutations(range(rows + 3)))
    many, few = fused_of(model, rows), fused_of(model, rows + 3, threads=2)
    for row in range(rows):
        many.write(row, rows_of(state, row))
    for row in chosen:
        few.write(slots[row], rows_of(state, row))
    for inputs in sequence:
        together, _ = many.step(range(rows), inputs)
        apart, _ = few.step([slots[row] for row in chosen], inputs[chosen])
        assert np.array_equal(together[chosen], apart)
    for row in chosen:
        ours, theirs = few.read(slots[row]), many.read(row)
        assert all(np.array_equal(ours[leaf], theirs[leaf]) for leaf in ours)


@pytest.mark.parametrize("name", ["dnc-2-read-3-write-heads", "dnc-programs", "ntm-gru"])
def test_row_has_the_same_bits_on_any_number_of_threads(name):
    model = make_from(CATALOGUE[name])
    one, three = fused_of(model, 50), fused_of(model, 50, threads=3)
    state, slots = lived_in_state(model, 50), list(range(50))
    for fused, row in itertools.product((one, three), slots):
        fused.write(row, rows_of(state, row))
    for inputs in random_inputs(model, 4, 50).numpy():
        assert np.array_equal(one.step(slots, inputs)[0], three.step(slots, inputs)[0])
    for row in slots:
        ours, theirs = one.read(row), three.read(row)
        assert all(np.array_equal(ours[leaf], theirs[leaf]) for leaf in ours)


def test_threads_share_only_what_is_worth_it(monkeypatch):
    monkeypatch.setattr(plan, "LEAST_PER_THREAD", 1_000)
    for rows, threads, numbers, parts in ((64, 2, 30, 1), (64, 2, 32, 2), (64, 4, 50, 3), (1, 2, 10**9, 1)):
        assert plan.thread_count(rows, threads, numbers) == parts


def test_slots_that_are_not_stepped_are_left_alone():
    model = make_from(CATALOGUE["dnc-3-write-heads"])
    fused, state = fused_of(model, 3), lived_in_state(model, 3)
    for row in range(3):
        fused.write(row, rows_of(state, row))
    fused.step([1], random_inputs(model, 1, 1)[0].numpy())
    for row in (0, 2):
        kept = fused.read(row)
        assert all(np.array_equal(kept[name], leaf) for name, leaf in rows_of(state, row).items())


def test_new_state_leaves_nothing_of_the_old_in_its_slot():
    model = make_from(CATALOGUE["dnc-odd-sizes"])
    fused, fresh = fused_of(model, 1), fused_of(model, 1)
    state, inputs = rows_of(lived_in_state(model, 1), 0), random_inputs(model, 1, 1)[0].numpy()
    fused.write(0, {name: np.full_like(leaf, np.nan) for name, leaf in state.items()})
    assert np.isnan(fused.step([0], inputs)[0]).all()
    for arena in (fused, fresh):
        arena.write(0, state)
    assert np.array_equal(fused.step([0], inputs)[0], fresh.step([0], inputs)[0])


def test_steps_in_one_call_have_bits_of_single_calls():
    model = make_from(CATALOGUE["dnc-stack"])
    one, many, sequence = fused_of(model, 20), fused_of(model, 20, threads=2), random_inputs(model, 5, 18).numpy()
    state, slots = lived_in_state(model, 18), list(range(19, 1, -1))
    for row, slot in enumerate(slots):
        one.write(slot, rows_of(state, row))
        many.write(slot, rows_of(state, row))
    expected = np.stack([one.step(slots, inputs)[0] for inputs in sequence])
    assert np.array_equal(many.run(slots, sequence), expected)
    for slot in slots:
        assert all(np.array_equal(leaf, one.read(slot)[name]) for name, leaf in many.read(slot).items())
    with pytest.raises(ValueError, match=r"inputs must be of shape \[5, 18, 3\], got \[5, 17, 3\]"):
        many.run(slots, sequence[:, 1:])
    with pytest.raises(ValueError, match=r"inputs must be of shape \[1, 18, 3\], got \[0, 18, 3\]"):
        many.run(slots, sequence[:0])


def test_trace_that_was_not_asked_for_is_not_there():
    fused = fused_of(make_from(CATALOGUE["ntm"]), 1)
    _, traces = fused.step([0], np.zeros((1, 3), np.float32), ["content_weights"])
    assert set(traces) == {"content_weights"}


def test_arena_that_grows_keeps_its_states():
    model = make_from(CATALOGUE["ntm"])
    fused, state = fused_of(model, 2), lived_in_state(model, 2)
    fused.write(1, rows_of(state, 1))
    fused.grow(9)
    fused.write(8, rows_of(state, 0))
    kept = fused.read(1)
    assert all(np.array_equal(kept[name], leaf) for name, leaf in rows_of(state, 1).items())
    inputs = random_inputs(model, 1, 2)[0].numpy()
    expected, _, _ = unroll(model, torch.from_numpy(inputs)[None], state)
    outputs, _ = fused.step([8, 1], inputs)
    assert_near(outputs, model.activate(expected[0]).detach(), "outputs")


@pytest.mark.parametrize("size", [1, 9, 80])
@pytest.mark.parametrize("name", COVERED)
def test_step_writes_nothing_beyond_its_arrays(name, size):
    config = CATALOGUE[name]
    model = make_from(replace(config, memory_size=size) if hasattr(config, "memory_size") else config)
    fused, batch, beyond = fused_of(model, 9), 7, 64
    described = fused._packed.model
    traced = fused._traces.allocate(batch, schemas(model)[1].keys() - LEAVES).arrays
    counts = [batch * described.output_size, library().workspace_size(ctypes.byref(described), batch, 0)]
    counts += [array.size for array in traced.values()]
    guarded = [np.full(count + beyond, np.pi, np.float32) for count in counts]
    outputs, workspace, *arrays = guarded
    fused._workspaces[:] = [workspace]
    inputs = np.ones((1, batch, described.input_size), np.float32)
    heads = HeadTrace(fused._traces, dict(zip(traced, arrays, strict=True)))
    fused._run(np.arange(1, batch + 1), inputs, outputs, heads)
    for values, count in zip(guarded, counts, strict=True):
        assert (values[count:] == np.float32(np.pi)).all()
    assert all((fused.read(slot)[leaf] == 0).all() for slot in (0, 8) for leaf in fused.shapes)


@pytest.mark.parametrize("slots", [[], [-1], [3], [0, 3], [1, 1]])
def test_slots_that_are_none_of_the_arena_are_refused(slots):
    model = make_from(CATALOGUE["ntm"])
    fused = fused_of(model, 3)
    with pytest.raises(IndexError, match="slots must be distinct numbers from 0 to 2, got"):
        fused.step(slots, np.zeros((len(slots), 3), np.float32))


@pytest.mark.parametrize("shape", [(1, 4), (2, 3), (3,), (1, 1, 3)])
def test_inputs_of_another_shape_are_refused(shape):
    fused = fused_of(make_from(CATALOGUE["ntm"]), 3)
    with pytest.raises(ValueError, match=r"inputs must be of shape \[1, 3\], got"):
        fused.step([0], np.zeros(shape, np.float32))


def test_inputs_of_other_dtype_and_order_are_converted():
    model = make_from(CATALOGUE["rnn"])
    fused = fused_of(model, 2)
    inputs = np.asfortranarray(random_inputs(model, 1, 2)[0].double().numpy())
    outputs, _ = fused.step([0, 1], inputs)
    again = fused_of(model, 2)
    assert np.array_equal(outputs, again.step([0, 1], inputs.astype(np.float32, order="C"))[0])


@pytest.mark.parametrize("name", sorted(set(CATALOGUE) - set(COVERED)))
def test_model_without_a_kernel_is_refused_with_the_reason(name):
    with pytest.raises(NoKernel, match="there is no fused kernel for this model: it"):
        fused_of(make_from(CATALOGUE[name]), 1)


@pytest.mark.parametrize(
    "controller",
    [{}, {"kind": "stack"}, {"kind": "stack", "cells": 3}, {"kind": "dropout", "cell": None}, {"kind": ["lstm"]}],
)
def test_invalid_config_has_no_kernel_and_a_reason(controller):
    assert not_fused("rnn", {"controller": controller}).startswith("its ")


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", [BasicRNNConfig, GRUConfig, LSTMConfig, FeedForwardConfig])
def test_controller_is_bounded_where_its_activation_is(kind, activation):
    cell, reached = kind(activation=activation), ACTIVATIONS[activation](torch.tensor([-1e30, 1e30])).abs().max()
    for controller in (cell, StackConfig((LSTMConfig(), cell)), DropoutConfig(cell)):
        assert is_bounded(config_values(RNNConfig(3, 2, controller=controller))) is (reached.item() <= 1)


@pytest.mark.parametrize("activation", ["softmax", "swish", None])
@pytest.mark.parametrize("kind", ["basic-rnn", "gru", "lstm", "feed-forward"])
def test_cell_with_unknown_activation_has_no_kernel(kind, activation):
    controller = {"kind": kind, "hidden_size": 3, "activation": activation}
    assert not_fused("rnn", {"controller": controller}) == f"its activation is {activation!r}"


# The functions of eight numbers


EXACT = {
    "exp": np.exp,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "softplus": lambda x: np.logaddexp(0, x),
    "log": np.log,
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "softsign": lambda x: x / (1 + np.abs(x)),
}


def computed(name, values):
    values = np.ascontiguousarray(values, np.float32)
    results = np.empty_like(values)
    library().function(FUNCTIONS.index(name), values.ctypes.data, results.ctypes.data, len(values))
    return results


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_has_relative_error_below_4e_7(name):
    draw = np.random.default_rng(0)
    small, large = 10.0 ** draw.uniform(-8, 0, 400_000), draw.uniform(0, 80, 400_000)
    values = np.concatenate([small, large]).astype(np.float32)
    values = values if name == "log" else np.concatenate([values, -values])
    exact = EXACT[name](values.astype(np.float64))
    assert (np.abs(computed(name, values) - exact) / np.abs(exact)).max() <= 4e-7


@pytest.mark.parametrize("name", ["exp", "tanh", "sigmoid", "softplus", "elu", "softsign"])
def test_function_of_what_is_no_number_is_none(name):
    values = np.full(8, np.nan)
    assert np.isnan(computed(name, values)).all()


def test_step_leaves_the_mode_of_the_processor_as_it_was():
    denormal = np.float32(1e-40)
    assert denormal * np.float32(1) > 0
    fused = fused_of(make_from(CATALOGUE["ntm"]), 1)
    fused.step([0], np.zeros((1, 3), np.float32))
    assert denormal * np.float32(1) > 0
