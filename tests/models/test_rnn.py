"""The RNN: a cell with a linear layer on top."""

import numpy as np
import pytest
import torch

from models.config import ConfigError
from models.rnn import RNNConfig
from models.state import flatten
from tests.models import naive
from tests.models.catalogue import CATALOGUE, make, random_inputs


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
            h, naive_states[row] = naive.cell(model.config.controller, weights, inputs[row].numpy(), naive_states[row])
            expected = naive.linear(weights, "output", h) if model.config.readout else h
            np.testing.assert_allclose(outputs[row], expected, rtol=0, atol=1e-9)
            naive.assert_state_near(flatten(state), row, {"controller": naive_states[row]})


@pytest.mark.parametrize("field", ["input_size", "output_size"])
@pytest.mark.parametrize("value", [0, -3])
def test_rnn_config_of_no_size_names_the_field_and_the_value(field, value):
    with pytest.raises(ConfigError, match=rf"RNNConfig\.{field} must be at least 1, got {value}"):
        RNNConfig(**{"input_size": 3, "output_size": 2, field: value})
