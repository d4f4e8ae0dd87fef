"""What every model shares: the activation of its outputs, and unrolling it over time."""

import pytest
import torch

from models.contract import unroll
from tests.models.catalogue import make, random_inputs


def test_activation_sigmoid_turns_outputs_into_probabilities():
    model = make("dnc-sigmoid")
    assert model.activate(torch.tensor([0.0, -200.0, 200.0])).tolist() == [0.5, 0, 1]


def test_activation_identity_leaves_outputs_as_they_are():
    assert make("dnc").activate(torch.tensor([0.0, -200.0, 200.0])).tolist() == [0, -200, 200]


def test_step_outputs_come_before_the_activation():
    outputs, _, _ = unroll(model := make("ntm-sigmoid", spread=5), random_inputs(model, 5, 4), model.initial_state(4))
    assert outputs.min() < 0
    assert outputs.max() > 1


def test_model_knows_its_sizes():
    model = make("dnc-odd-sizes")
    assert (model.input_size, model.output_size) == (7, 5)


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
