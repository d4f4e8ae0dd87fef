"""The RNN: a cell with a linear layer on top."""

import numpy as np
import pytest
import torch

from models.config import ConfigError
from models.rnn import RNN, RNNConfig
from models.state import flatten
from tests.models import naive
from tests.models.catalogue import CATALOGUE, GRU, make, random_inputs


@pytest.mark.parametrize("name", [name for name in CATALOGUE if name.startswith("rnn")])
@torch.no_grad()
def test_rnn_step_agrees_with_the_naive_version(name):
    model = make(name, torch.float64)
    weights, state = naive.weights_of(model), model.initial_state(2)
    naive_states = [naive.row_of(flatten(state), row)["controller"] for row in range(2)]
    for inputs in random_inputs(model, 10, 2):
        outputs, state, trace = model.step(inputs, state)
        assert trace == {}
        for row in range(2):
            seen = naive.encoded(model.config, weights, inputs[row].numpy())
            h, naive_states[row] = naive.cell(model.config.controller, weights, seen, naive_states[row])
            expected = naive.linear(weights, "output", h) if model.config.readout else h
            np.testing.assert_allclose(outputs[row], expected, rtol=0, atol=1e-9)
            naive.assert_state_near(flatten(state), row, {"controller": naive_states[row]})


@pytest.mark.parametrize("field", ["input_size", "output_size"])
@pytest.mark.parametrize("value", [0, -3])
def test_rnn_config_of_no_size_names_field_and_value(field, value):
    with pytest.raises(ConfigError, match=rf"RNNConfig\.{field} must be at least 1, got {value}"):
        RNNConfig(**{"input_size": 3, "output_size": 2, field: value})


def test_rnn_without_a_readout_outputs_its_cells_output():
    model = make("rnn-no-readout")
    inputs, state = random_inputs(model, 1, 2)[0], model.initial_state(2)
    outputs, _, _ = model.step(inputs, state)
    assert torch.equal(outputs, model.controller(inputs, state.controller)[0])


def test_rnn_without_a_readout_refuses_another_output_size():
    with pytest.raises(ConfigError, match=r"RNNConfig\.output_size must be the cell's 4 without a readout, got 2"):
        RNN(RNNConfig(3, 2, controller=GRU, readout=False))


def test_rnn_refuses_a_memory_size():
    with pytest.raises(ConfigError, match="memory_size 17 was asked for, but an RNN has no memory to resize"):
        make("rnn").initial_state(1, memory_size=17)
