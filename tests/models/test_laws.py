"""The laws of all models, each one test over the whole table of models."""

import collections
import copy
import dataclasses
import functools
import itertools
import re
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load, save

from models import laws
from models.cells import CELLS, Cell
from models.contract import MemoryModel, schemas, unroll
from models.dnc import DNC
from models.ntm import NTM
from models.registry import MODELS, build, config_values
from models.state import StateError, flatten, map_leaves, unflatten
from tests.models.catalogue import CATALOGUE, KINDS, lived_in_state, make, random_inputs

every_model = pytest.mark.parametrize("name", CATALOGUE)
every_model_with_memory = pytest.mark.parametrize("name", [name for name in CATALOGUE if not name.startswith("rnn")])
both_precisions = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])


# The table


def test_table_everything_registered_is_in_it():
    present = {(KINDS[type(config)], config.controller.kind) for config in CATALOGUE.values()}
    assert present == set(itertools.product(MODELS, CELLS))


@pytest.mark.parametrize("kind", MODELS)
def test_table_has_several_values_of_every_model_option(kind):
    configs = [config for config in CATALOGUE.values() if KINDS[type(config)] == kind]
    for field in dataclasses.fields(MODELS[kind][0]):
        assert len({getattr(config, field.name) for config in configs}) >= 2, field.name


@pytest.mark.parametrize("kind", CELLS)
def test_table_has_several_values_of_every_cell_option(kind):
    cells = [config.controller for config in CATALOGUE.values() if config.controller.kind == kind]
    for field in dataclasses.fields(CELLS[kind][0]):
        assert field.name == "kind" or len({getattr(cell, field.name) for cell in cells}) >= 2, field.name


def test_registry_holds_models_and_cells_only():
    assert all(issubclass(model, MemoryModel) for _, model in MODELS.values())
    assert all(issubclass(cell, Cell) for _, cell in CELLS.values())


@both_precisions
@every_model
def test_every_law_of_users_models_holds(name, dtype):
    laws.check_laws(make(name, dtype))


# Pure


@every_model
def test_step_same_call_twice_gives_same_bits(name):
    laws.same_step_gives_the_same_bits(make(name))


@every_model
def test_step_leaves_its_arguments_unchanged(name):
    laws.arguments_are_left_as_they_were(make(name))


@every_model
def test_step_leaves_the_module_unchanged(name):
    model = make(name)
    state = lived_in_state(model, 3)
    attributes, weights = attributes_of(model), copy.deepcopy(model.state_dict())
    model.step(random_inputs(model, 1, 3)[0], state)
    assert attributes_of(model) == attributes
    assert_same_bits(dict(model.state_dict()), dict(weights))


@every_model
def test_two_sequences_stepped_in_turns_never_meet(name):
    laws.nothing_is_remembered_outside_the_state(make(name))


# Over time


@every_model
def test_unroll_of_two_halves_gives_the_bits_of_the_whole(name):
    model = make(name)
    inputs, state = random_inputs(model, 6, 3), lived_in_state(model, 3)
    traces = list(schemas(model)[1])
    whole = unroll(model, inputs, state, traces)
    for cut in range(1, 6):
        head, between, head_trace = unroll(model, inputs[:cut], state, traces)
        tail, last, tail_trace = unroll(model, inputs[cut:], between, traces)
        trace = {name: torch.cat([head_trace[name], tail_trace[name]]) for name in traces}
        assert_same_bits((torch.cat([head, tail]), last, trace), whole)


@every_model
def test_unroll_gives_the_bits_of_single_steps(name):
    model = make(name)
    inputs, state = random_inputs(model, 6, 3), lived_in_state(model, 3)
    whole, last, _ = unroll(model, inputs, state)
    outputs = []
    for step_inputs in inputs:
        output, state, _ = model.step(step_inputs, state)
        outputs.append(output)
    assert_same_bits((torch.stack(outputs), state), (whole, last))


# Structure


@both_precisions
@every_model
def test_state_structure_shape_and_dtype_are_kept(name, dtype):
    model = make(name, dtype)
    assert next(model.parameters()).dtype == dtype
    laws.state_has_its_form(model)
    laws.step_keeps_the_form(model)


@every_model
def test_state_leaves_are_contiguous_and_apart(name):
    model = make(name)
    for state in (model.initial_state(3), lived_in_state(model, 3)):
        leaves = flatten(state).values()
        assert all(leaf.is_contiguous() for leaf in leaves)
        assert len({leaf.data_ptr() for leaf in leaves}) == len(leaves)


@every_model
def test_state_rows_before_the_first_step_are_the_same(name):
    laws.first_state_is_the_same_for_every_row(make(name))


@both_precisions
@every_model
def test_schemas_equal_the_shapes_of_a_step(name, dtype):
    model = make(name, dtype)
    _, state, trace = model.step(random_inputs(model, 1, 3)[0], model.initial_state(3))
    state_schema, trace_schema = schemas(model)
    assert state_schema == {name: list(leaf.shape[1:]) for name, leaf in flatten(state).items()}
    assert trace_schema == {name: list(values.shape[1:]) for name, values in trace.items()}
    assert list(state_schema) == list(flatten(state))


@every_model
def test_model_moved_to_double_precision_follows(name):
    model = make(name)
    inputs, state = random_inputs(model, 1, 3)[0], lived_in_state(model, 3)
    outputs, next_state, _ = model.step(inputs, state)
    model.to(torch.float64)
    finer_outputs, finer_state, _ = model.step(inputs.double(), map_leaves(torch.Tensor.double, state))
    for finer, coarser in zip(leaves_of((finer_outputs, finer_state)), leaves_of((outputs, next_state)), strict=True):
        assert finer.dtype == torch.float64
        torch.testing.assert_close(finer, coarser.double(), rtol=1e-4, atol=1e-5)
    assert all(leaf.dtype == torch.float64 for leaf in flatten(model.initial_state(2)).values())


@every_model
def test_model_moved_to_another_device_follows(name):
    model = make(name).to("meta")
    outputs, state, trace = model.step(torch.empty(3, model.input_size, device="meta"), model.initial_state(3))
    assert all(tensor.is_meta for tensor in leaves_of((outputs, state, trace)))


@every_model_with_memory
def test_weights_fit_a_memory_of_another_size(name):
    """No weight depends on the number of memory locations: a step takes that of its state."""
    model, size = make(name), CATALOGUE[name].memory_size + 3
    fresh = model.initial_state(2, memory_size=size)
    _, state, trace = model.step(random_inputs(model, 1, 2)[0], fresh)
    assert state.memory.shape[1] == trace["write_weights"].shape[2] == size
    assert described(flatten(state)) == described(flatten(fresh))
    assert schemas(model, size)[0] == {name: list(leaf.shape[1:]) for name, leaf in flatten(state).items()}


# Refused


@every_model
def test_inputs_of_another_shape_are_refused_with_both_shapes(name):
    model = make(name)
    inputs, state, size = random_inputs(model, 1, 3)[0], model.initial_state(3), model.input_size
    wider = torch.cat([inputs, inputs[:, :1]], 1)
    for wrong in (wider, inputs[0], inputs[:0], inputs[None, None]):
        for call, axes, values in ((model.step, "B", wrong), (functools.partial(unroll, model), "T, B", wrong[None])):
            message = f"inputs must be of shape [{axes}, {size}], none of them 0, got {list(values.shape)}"
            with pytest.raises(ValueError, match=re.escape(message)):
                call(values, state)


@every_model
def test_state_leaf_of_another_shape_is_refused_by_name(name):
    model = make(name)
    inputs, state = random_inputs(model, 2, 3), lived_in_state(model, 3)
    for leaf_name, leaf in flatten(state).items():
        for wrong in (leaf[:2], leaf[0], torch.cat([leaf, leaf[..., :1]], -1)):
            got, message = list(wrong.shape), f"state leaf {leaf_name!r}: expected shape {list(leaf.shape)}, got "
            changed = with_leaf(state, leaf, wrong)
            with pytest.raises(StateError, match=re.escape(f"{message}{got}")):
                model.step(inputs[0], changed)
            with pytest.raises(StateError, match=re.escape(f"{message}{got}")):
                unroll(model, inputs, changed)


@every_model
def test_state_of_another_structure_is_refused_with_leaf_names(name):
    """Also if every leaf has its shape: in a tuple, or under other names, h and c may be exchanged."""
    model = make(name)
    inputs, state = random_inputs(model, 2, 3), model.initial_state(3)
    renamed = collections.namedtuple("Other", state._fields)(*state)
    cell = collections.namedtuple("OtherCell", state.controller._fields[::-1])(*state.controller[::-1])
    for wrong in (tuple(state), renamed, flatten(state), None):
        with pytest.raises(StateError, match=rf"^state: expected {type(state).__name__}\(controller=.*, got .*=\.\.\."):
            model.step(inputs[0], wrong)
    for wrong in (tuple(state.controller), cell, None, OtherState(state.controller)):
        kind, got = type(state.controller).__name__, type(wrong).__name__ if wrong is not None else "None"
        with pytest.raises(StateError, match=rf"^state part 'controller': expected {kind}\(.*, got {got}.*{kind}\("):
            unroll(model, inputs, state._replace(controller=wrong))


# Rows


@every_model
def test_row_result_is_the_same_whoever_is_beside_it(name):
    model = make(name, torch.float64)
    inputs, state = random_inputs(model, 6, 4), lived_in_state(model, 4)
    together = unroll(model, inputs, state)[:2]
    for row in range(4):
        alone = unroll(model, inputs[:, row : row + 1], rows(state, [row]))[:2]
        assert_close((alone[0], alone[1]), (together[0][:, row : row + 1], rows(together[1], [row])))


@every_model
def test_row_result_does_not_depend_on_its_place(name):
    model = make(name, torch.float64)
    inputs, state = random_inputs(model, 6, 4), lived_in_state(model, 4)
    order = [2, 0, 3, 1]
    outputs, last, _ = unroll(model, inputs, state)
    moved_outputs, moved_last, _ = unroll(model, inputs[:, order], rows(state, order))
    assert_close((moved_outputs, moved_last), (outputs[:, order], rows(last, order)))


@pytest.mark.parametrize("poison", [1e30, float("inf"), float("nan")])
@every_model
def test_row_result_is_untouched_by_a_broken_neighbour(name, poison):
    model = make(name, torch.float64)
    inputs, state = random_inputs(model, 3, 3), lived_in_state(model, 3)
    outputs, last, _ = unroll(model, inputs, state)
    inputs[:, 1] = poison
    broken_outputs, broken_last, _ = unroll(model, inputs, state)
    assert_close((broken_outputs[:, [0, 2]], rows(broken_last, [0, 2])), (outputs[:, [0, 2]], rows(last, [0, 2])))


# At the borders


@every_model
def test_state_flattened_and_unflattened_is_itself(name):
    model = make(name)
    state = lived_in_state(model, 3)
    again = unflatten(flatten(state), like=model.initial_state(1))
    assert type(again) is type(state)
    assert_same_bits(again, state)


@both_precisions
@every_model
def test_state_saved_and_loaded_is_itself(name, dtype):
    model = make(name, dtype)
    state = lived_in_state(model, 3)
    again = unflatten(load(save(flatten(state))), like=model.initial_state(1))
    assert_same_bits(again, state)
    inputs = random_inputs(model, 1, 3)[0]
    assert_same_bits(model.step(inputs, again), model.step(inputs, state))


@every_model
def test_weights_saved_and_loaded_are_themselves(name):
    model = make(name)
    again = build(KINDS[type(CATALOGUE[name])], config_values(CATALOGUE[name])).eval()
    again.load_state_dict(load(save(model.state_dict())))
    assert_same_bits(dict(again.state_dict()), dict(model.state_dict()))
    inputs, state = random_inputs(model, 1, 3)[0], lived_in_state(model, 3)
    assert_same_bits(again.step(inputs, state), model.step(inputs, state))


# Gradients


@every_model
def test_gradients_agree_with_differences(name):
    """From a used state: in a fresh one all usages tie, and the location that is allocated first may change.

    The DNC's usage takes the write weights of the previous step as constants, and they reach a step in no other way:
    every step gets those of an undisturbed run, for the gradient is defined so.
    """
    model = make(name, torch.float64)
    inputs, start = random_inputs(model, 3, 2), lived_in_state(model, 2)
    constant = {"write_weights"} if isinstance(model, DNC) else set()
    unused = {"link_columns"} if isinstance(model, DNC) else {"read_vectors"} if "before" in order_of(model) else set()
    undisturbed = [unroll(model, inputs[:step], start)[1] if step else start for step in range(3)]
    assert_usages_are_apart(model, undisturbed)

    def three_steps(inputs, *leaves):
        state, outputs = unflatten(dict(zip(flatten(start), leaves[: len(flatten(start))], strict=True)), start), []
        for step_inputs, recorded in zip(inputs, undisturbed, strict=True):
            state = state._replace(**{name: getattr(recorded, name).detach() for name in constant})
            output, state, _ = model.step(step_inputs, state)
            outputs.append(output)
        results = (torch.stack(outputs), *flatten(state).values(), *flatten(model.initial_state(1)).values())
        return tuple(result for result in results if result.requires_grad)

    leaves = [leaf.clone().requires_grad_(name not in constant | unused) for name, leaf in flatten(start).items()]
    arguments = [inputs.requires_grad_(not model.embedding), *leaves, *model.parameters()]
    assert torch.autograd.gradcheck(three_steps, arguments, fast_mode=True)


@every_model
def test_gradients_reach_every_weight_and_the_inputs(name):
    model = make(name, torch.float64)
    inputs = random_inputs(model, 8, 4).requires_grad_()
    outputs, _, _ = unroll(model, inputs, model.initial_state(4))
    outputs.square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())
    assert model.embedding or (inputs.grad.abs().sum((1, 2)) > 0).all()


# Extremes


@pytest.mark.parametrize(
    ("scale", "spread", "steps"),
    [(0.0, 0.5, 60), (1e4, 0.5, 12), (1.0, 20.0, 12), (1e4, 20.0, 12), (0.0, 0.0, 12)],
    ids=["silence", "huge inputs", "saturated weights", "huge inputs and saturated weights", "zero weights"],
)
@every_model
def test_values_and_gradients_are_finite(name, scale, spread, steps):
    model = make(name, spread=spread)
    start = map_leaves(lambda leaf: leaf.requires_grad_(), model.initial_state(2))
    map_leaves(torch.Tensor.retain_grad, start)
    inputs = (random_inputs(model, steps, 2) * scale).requires_grad_()
    outputs, state, _ = unroll(model, inputs, start)
    loss = sum(tensor.sum() for tensor in leaves_of((outputs, state)))
    loss.backward()
    grads = [tensor.grad for tensor in (inputs, *leaves_of(start), *model.parameters()) if tensor.grad is not None]
    assert all(tensor.isfinite().all() for tensor in (*leaves_of((outputs, state)), *grads))


@pytest.mark.parametrize("spread", [1.0, 20.0])
@every_model_with_memory
def test_weightings_and_usage_stay_within_bounds(name, spread):
    model = make(name, spread=spread)
    state = model.initial_state(4)
    for inputs in random_inputs(model, 120, 4):
        with torch.no_grad():
            _, state, trace = model.step(inputs, state)
        assert_within_bounds(flatten(state) | trace)


# Helpers of the laws


def leaves_of(values):
    """Return every tensor in nested tuples and dictionaries."""
    if values is None:
        return []
    if isinstance(values, torch.Tensor):
        return [values]
    return [leaf for value in (values.values() if isinstance(values, dict) else values) for leaf in leaves_of(value)]


class OtherState(NamedTuple):
    """A state of no model."""

    h: Any


def with_leaf(state, leaf, other):
    """Return the state with another tensor, of any shape, in place of one of its leaves."""
    return map_leaves(lambda value: other if value is leaf else value, state)


def assert_same_bits(actual, expected):
    assert type(actual) is type(expected)
    for ours, theirs in zip(leaves_of(actual), leaves_of(expected), strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)


def assert_close(actual, expected):
    for ours, theirs in zip(leaves_of(actual), leaves_of(expected), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def rows(state, numbers):
    return map_leaves(lambda leaf: leaf[numbers], state)


def described(leaves):
    return {name: (tuple(leaf.shape), leaf.dtype, leaf.device) for name, leaf in leaves.items()}


def attributes_of(model):
    """Return all attributes of the modules of a model, by their paths and names."""
    return {
        (path, name): copy.copy(value) if isinstance(value, dict | list | set) else value
        for path, module in model.named_modules()
        for name, value in vars(module).items()
    }


def order_of(model):
    return model.config.order if isinstance(model, NTM) else ""


def assert_usages_are_apart(model, states):
    """The steps of differences, 1e-6, must not change the order in which locations are allocated."""
    for state in states if isinstance(model, DNC) else ():
        assert (state.usage.sort(1).values.diff(dim=1) > 1e-5).all()


def as_matrix(link, columns):
    """Return the link matrix, [B, V, N, N], whose rows have these entries in these columns."""
    assert all(len(set(row)) == len(row) for row in columns.flatten(0, 2).tolist())
    slots = link.shape[2]
    return link.new_zeros(*link.shape[:3], slots).scatter(3, columns.long(), link)


def assert_within_bounds(tensors):
    for name in (name for name in tensors if name.endswith("_weights")):
        assert (tensors[name] >= -1e-6).all(), name
        assert (tensors[name].sum(-1) <= 1 + 1e-5).all(), name
    for name in tensors.keys() & {"usage", "retention", "erase_vectors", "read_masks", "write_masks"}:
        assert ((tensors[name] >= -1e-6) & (tensors[name] <= 1 + 1e-6)).all(), name
    if "link" in tensors:
        link = as_matrix(tensors["link"], tensors["link_columns"]) if "link_columns" in tensors else tensors["link"]
        assert (link.diagonal(dim1=2, dim2=3) == 0).all()
        assert (link >= -1e-6).all()
        assert (link.sum(2) <= 1 + 1e-5).all()
        assert (link.sum(3) <= 1 + 1e-5).all()
