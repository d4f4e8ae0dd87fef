"""The shared parts of all models: the activation of outputs, and unrolling over time."""

import re
from typing import NamedTuple

import pytest
import torch

from kernels.torch_unroll import TorchUnroll
from kernels.unroll import FusedUnroll
from models.config import ConfigError
from models.contract import checked_memory_size, schemas, unroll
from models.registry import MODELS, model_config
from models.rnn import RNNState
from models.state import StateError, flatten
from tests.models.catalogue import CATALOGUE, lived_in_state, make, random_inputs


def test_activation_sigmoid_turns_outputs_into_probabilities():
    model = make("dnc-sigmoid")
    assert model.activate(torch.tensor([0.0, -200.0, 200.0])).tolist() == [0.5, 0, 1]


def test_activation_softmax_turns_outputs_into_probabilities_of_classes():
    outputs = torch.tensor([[[0.0, 0, 0, 0], [200, -200, 0, 0]], [[1, 2, 1, 2], [-9, -9, -9, 300]]])
    likely, even = torch.e / (2 + 2 * torch.e), 0.25
    expected = [[[even] * 4, [1, 0, 0, 0]], [[0.5 - likely, likely] * 2, [0, 0, 0, 1]]]
    probabilities = make("dnc-tokens").activate(outputs)
    torch.testing.assert_close(probabilities, torch.tensor(expected))
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(2, 2))


def test_activation_softmax_of_groups_makes_each_digit_sum_to_1():
    outputs = torch.tensor([[[200.0, -200, 0, 0, 0, 0]], [[1, 2, 2, -9, -9, 300]]])
    model, likely = make("dnc-groups"), torch.e / (1 + 2 * torch.e)
    expected = [[[1, 0, 0, 1 / 3, 1 / 3, 1 / 3]], [[1 - 2 * likely, likely, likely, 0, 0, 1]]]
    torch.testing.assert_close(model.activate(outputs), torch.tensor(expected))


@pytest.mark.parametrize("kind", MODELS)
def test_group_of_outputs_is_activated_as_if_it_were_alone(kind):
    model, outputs = make(f"{kind}-groups"), torch.randn(4, 3, CATALOGUE[f"{kind}-groups"].output_size)
    parts = outputs.split(model.output_size // model.output_groups, -1)
    assert torch.equal(model.activate(outputs), torch.cat([torch.softmax(part, -1) for part in parts], -1))


GROUPS = [
    (3, "softmax", 0, r"\.output_groups must be at least 1, got 0"),
    (10, "softmax", 3, r"\.output_groups must divide output_size 10, got 3: .* times that of the classes in each"),
    (9, "sigmoid", 3, r"\.output_groups must be 1 .*, got 3 with output_activation 'sigmoid': take 'softmax'"),
]


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(("size", "activation", "groups", "complaint"), GROUPS)
def test_groups_that_outputs_cannot_be_are_refused_with_the_remedy(kind, size, activation, groups, complaint):
    values = {"input_size": 3, "output_size": size, "output_activation": activation, "output_groups": groups}
    with pytest.raises(ConfigError, match=complaint):
        model_config(kind, values)


def test_activation_identity_leaves_outputs_as_they_are():
    assert make("dnc").activate(torch.tensor([0.0, -200.0, 200.0])).tolist() == [0, -200, 200]


def test_step_outputs_come_before_the_activation():
    outputs, _, _ = unroll(model := make("ntm-sigmoid", spread=5), random_inputs(model, 5, 4), model.initial_state(4))
    assert outputs.min() < 0
    assert outputs.max() > 1


def test_model_knows_its_sizes():
    model = make("dnc-odd-sizes")
    assert (model.input_size, model.output_size) == (7, 5)


@pytest.mark.parametrize("kind", MODELS)
def test_model_knows_where_its_answer_stands(kind):
    assert make(kind).output_at == "every-step"
    assert make(f"{kind}-tokens").output_at == "last-step"


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(
    ("name", "expected"),
    [("output_activation", "'identity', 'sigmoid', 'softmax'"), ("output_at", "'every-step', 'last-step'")],
)
def test_model_option_unknown_names_key_value_and_expectation(kind, name, expected):
    with pytest.raises(ConfigError) as error:
        model_config(kind, {"input_size": 3, "output_size": 2, name: "never"})
    assert str(error.value) == f"model.{name}: expected one of {expected}, got 'never'"


def test_model_knows_its_memory_size():
    assert (make("dnc").memory_size, make("ntm-shift-5").memory_size, make("rnn").memory_size) == (6, 8, None)


@pytest.mark.parametrize("name", ["dnc", "ntm"])
def test_memory_size_defaults_to_that_of_the_config(name):
    config = CATALOGUE[name]
    assert (checked_memory_size(config, None), checked_memory_size(config, 1), checked_memory_size(config, 99)) == (
        6,
        1,
        99,
    )


@pytest.mark.parametrize("name", ["dnc", "ntm"])
@pytest.mark.parametrize("slots", [0, -1])
def test_memory_size_refused_by_the_config_is_refused_alike(name, slots):
    with pytest.raises(ConfigError, match=rf"\.memory_size must be at least 1, got {slots}"):
        checked_memory_size(CATALOGUE[name], slots)
    with pytest.raises(ConfigError, match="memory_size must be at least 2, links_per_slot, got 1"):
        checked_memory_size(CATALOGUE["dnc-sparse-links"], 1)


def test_memory_size_symbol_is_returned_unchecked():
    symbol = object()
    assert checked_memory_size(CATALOGUE["dnc"], symbol) is symbol


@torch.no_grad()
@pytest.mark.parametrize("name", ["dnc", "ntm"])
def test_step_takes_any_memory_size_of_the_state(name):
    model = make(name)
    state = model.initial_state(2, memory_size=13)
    assert model.step(random_inputs(model, 1, 2)[0], state)[1].memory.shape == (2, 13, 4)
    assert lived_in_state(model, 2).memory.shape == (2, 6, 4)
    assert schemas(model)[0]["memory"] == [6, 4]
    assert schemas(model, 13)[0]["memory"] == [13, 4]


def test_schemas_of_a_model_in_training_draw_no_noise():
    model = make("dnc-improved").train()
    before = torch.get_rng_state()
    schemas(model)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training


def test_unroll_keeps_the_traces_that_are_named_and_no_other():
    model = make("ntm-3-read-heads")
    inputs = random_inputs(model, 4, 2)
    outputs, _, trace = unroll(model, inputs, model.initial_state(2), ["read_weights", "sharpening"])
    _, _, first = model.step(inputs[0], model.initial_state(2))
    assert outputs.shape == (4, 2, 2)
    assert {name: tuple(values.shape) for name, values in trace.items()} == {
        "read_weights": (4, 2, 3, 5),
        "sharpening": (4, 2, 4),
    }
    assert torch.equal(trace["read_weights"][0], first["read_weights"])


def test_unroll_without_names_keeps_no_trace():
    model = make("dnc")
    assert unroll(model, random_inputs(model, 2, 1), model.initial_state(1))[2] == {}


def test_unroll_of_an_unknown_trace_names_it():
    model = make("rnn")
    with pytest.raises(KeyError, match="read_weights"):
        unroll(model, random_inputs(model, 2, 1), model.initial_state(1), ["read_weights"])


def unrolls_of(model):
    return [TorchUnroll(model), FusedUnroll(model)]


class TensorFlowState(NamedTuple):
    c: torch.Tensor
    h: torch.Tensor


@pytest.mark.parametrize("state_of", [TensorFlowState, lambda c, h: (c, h)], ids=["named", "tuple"])
def test_state_in_the_order_of_tensorflow_is_refused_with_remedy(state_of):
    """The shapes are right: only the types show that c stands first."""
    model = make("rnn")
    state = RNNState(state_of(*torch.randn(2, 3, 5)))
    for call in unrolls_of(model):
        with pytest.raises(StateError) as error:
            call(random_inputs(model, 2, 3), state)
        assert str(error.value).startswith("state part 'controller': expected LSTMState(h=[3, 5], c=[3, 5]), got ")
        assert str(error.value).endswith("or name the leaves: LSTMState(h=..., c=...)")


def test_state_of_another_cell_is_refused_with_both_structures():
    model, other = make("rnn"), make("rnn-stack")
    for call in unrolls_of(model):
        with pytest.raises(StateError) as error:
            call(random_inputs(model, 2, 3), other.initial_state(3))
        assert "expected LSTMState(h=[3, 5], c=[3, 5]), got StackState(layer0=LSTMState(h=[3, 5]" in str(error.value)
        assert "layer1=HiddenState(h=[3, 4]), layer2=NoState()); pass the state that " in str(error.value)


def test_state_without_a_leaf_is_refused_by_the_leaf():
    model, other = make("dnc-no-links"), make("dnc-3-read-heads")
    inputs, state = random_inputs(model, 2, 3), model.initial_state(3)
    with pytest.raises(StateError, match=re.escape("leaf 'link': expected None, got [3, 1, 5, 5]")):
        unroll(model, inputs, state._replace(link=other.initial_state(3).link))
    with pytest.raises(StateError, match=re.escape("leaf 'usage': expected shape [3, 6], got None")):
        unroll(model, inputs, state._replace(usage=None))


def test_state_of_two_memory_sizes_is_refused():
    model = make("dnc")
    state = model.initial_state(3, 9)._replace(usage=model.initial_state(3).usage)
    for call in unrolls_of(model):
        with pytest.raises(StateError, match=re.escape("state leaf 'usage': expected shape [3, 9], got [3, 6]")):
            call(random_inputs(model, 2, 3), state)


def test_inputs_that_are_no_tensor_are_refused():
    model = make("dnc")
    for call in unrolls_of(model):
        for wrong in (random_inputs(model, 2, 3).numpy(), [[[0.0, 0.0, 0.0]]]):
            with pytest.raises(ValueError, match=rf"\[T, B, 3\], none of them 0, got a {type(wrong).__name__}$"):
                call(wrong, model.initial_state(3))


@pytest.mark.parametrize("lengths", [torch.tensor([1]), torch.ones(3), torch.ones(3, 1).int(), [1, 2, 3]])
def test_lengths_other_than_whole_numbers_per_row_are_refused(lengths):
    model = make("rnn")
    for call in unrolls_of(model):
        with pytest.raises(ValueError, match="lengths must be 3 whole numbers, one for each row, got "):
            call(random_inputs(model, 2, 3), model.initial_state(3), lengths)


@torch.no_grad()
def test_step_is_compiled_as_one_graph():
    """A step checks its arguments, but not while it is traced."""
    model = make("dnc")
    inputs, state = random_inputs(model, 1, 3)[0], lived_in_state(model, 3)
    outputs, after, _ = torch.compile(model.step, backend="eager", fullgraph=True)(inputs, state)
    expected, expected_after, _ = model.step(inputs, state)
    assert torch.equal(outputs, expected)
    for name, leaf in flatten(after).items():
        assert torch.equal(leaf, flatten(expected_after)[name]), name
