"""The recurrent cells against the naive versions of their equations."""

import typing

import numpy as np
import pytest
import torch

from kernels import support
from models.cells import (
    ACTIVATIONS,
    CELLS,
    GRU,
    LSTM,
    ActivationName,
    BasicRNNConfig,
    Dropout,
    DropoutConfig,
    FeedForward,
    FeedForwardConfig,
    GRUConfig,
    LSTMConfig,
    StackConfig,
    build_cell,
    cell_config,
)
from models.config import ConfigError
from models.state import flatten
from tests.models import naive
from tests.models.catalogue import CATALOGUE


def cell_and_weights(config, input_size):
    """Return a cell with normal weights and, for the naive version, the weights by the names a model has for them."""
    cell = build_cell(input_size, config).double().eval()
    for parameter in cell.parameters():
        torch.nn.init.normal_(parameter)
    return cell, {f"controller.{name}": weight for name, weight in naive.weights_of(cell).items()}


CONFIGS = [*{repr(config.controller): config.controller for config in CATALOGUE.values()}.values()]
ACTIVATED = [
    kind(hidden_size=4, activation=name)
    for kind in (BasicRNNConfig, GRUConfig, LSTMConfig, FeedForwardConfig)
    for name in ACTIVATIONS
]


@pytest.mark.parametrize("config", CONFIGS + ACTIVATED, ids=repr)
@torch.no_grad()
def test_cell_agrees_with_the_naive_version(config):
    cell, weights = cell_and_weights(config, 3)
    state = cell.initial_state(2)
    naive_states = [{name: leaf[row].numpy() for name, leaf in flatten(state).items()} for row in range(2)]
    for inputs in torch.randn(10, 2, 3, dtype=torch.float64):
        outputs, state = cell(inputs, state)
        for row in range(2):
            expected, naive_states[row] = naive.cell(config, weights, inputs[row].numpy(), naive_states[row])
            np.testing.assert_allclose(outputs[row], expected, rtol=0, atol=1e-12)
            for name, leaf in flatten(state).items():
                np.testing.assert_allclose(leaf[row], naive_states[row][name], rtol=0, atol=1e-12)


def test_activations_of_cells_are_those_of_config_and_kernels():
    assert [*ACTIVATIONS] == [*typing.get_args(ActivationName)] == [*support.CELL_ACTIVATIONS]


@torch.no_grad()
def test_lstm_agrees_with_torch():
    """Torch orders the gates i, f, j, o, adds no constant to the forget gate, and splits the weights in two."""
    cell, _ = cell_and_weights(LSTMConfig(hidden_size=4, forget_bias=0), 3)
    theirs = torch.nn.LSTMCell(3, 4).double()
    i, j, f, o = cell.gates.weight.chunk(4)
    weight = torch.cat([i, f, j, o])
    i, j, f, o = cell.gates.bias.chunk(4)
    bias = torch.cat([i, f, j, o])
    theirs.load_state_dict(
        {"weight_ih": weight[:, :3], "weight_hh": weight[:, 3:], "bias_ih": bias, "bias_hh": torch.zeros_like(bias)}
    )
    state = their_state = cell.initial_state(2)
    for inputs in torch.randn(5, 2, 3, dtype=torch.float64):
        _, state = cell(inputs, state)
        their_state = theirs(inputs, their_state)
    torch.testing.assert_close(tuple(state), tuple(their_state))


def test_lstm_output_is_its_hidden_state():
    cell, _ = cell_and_weights(LSTMConfig(hidden_size=4), 3)
    outputs, state = cell(torch.randn(2, 3, dtype=torch.float64), cell.initial_state(2))
    assert torch.equal(outputs, state.h)


def test_lstm_with_open_forget_gate_keeps_its_cell_state():
    cell = LSTM(1, LSTMConfig(hidden_size=2, forget_bias=100))
    torch.nn.init.zeros_(cell.gates.weight)
    _, state = cell(torch.randn(1, 1), cell.initial_state(1)._replace(c=torch.tensor([[0.3, -7.0]])))
    torch.testing.assert_close(state.c, torch.tensor([[0.3, -7.0]]))


def test_lstm_fresh_weights_are_within_their_bound_and_biases_zero():
    cell = LSTM(7, LSTMConfig(hidden_size=9))
    assert 0.2 < cell.gates.weight.abs().max() <= 1 / 4
    assert (cell.gates.bias == 0).all()


def test_gru_fresh_biases_are_zero():
    cell = GRU(7, GRUConfig(hidden_size=9))
    assert 0.2 < cell.gates.weight.abs().max() <= 1 / 4
    assert (cell.gates.bias == 0).all()
    assert (cell.candidate.bias == 0).all()


def test_peepholes_are_zero_at_first():
    assert (LSTM(7, LSTMConfig(hidden_size=9, peepholes=True)).peepholes == 0).all()


def test_feed_forward_remembers_nothing():
    cell = FeedForward(3, FeedForwardConfig(hidden_size=4))
    inputs = torch.randn(2, 3)
    first, state = cell(inputs, cell.initial_state(2))
    cell(torch.randn(2, 3), state)
    assert torch.equal(cell(inputs, state)[0], first)
    assert flatten(state) == {}


@pytest.mark.parametrize("config", CONFIGS, ids=repr)
def test_cell_built_from_a_config_has_its_output_size(config):
    cell = build_cell(3, config)
    outputs, _ = cell(torch.randn(2, 3), cell.initial_state(2))
    assert type(cell) is CELLS[config.kind][1]
    assert outputs.shape == (2, cell.output_size)


def test_dropout_drops_in_training_only_and_keeps_the_cell_state():
    cell = Dropout(3, DropoutConfig(LSTMConfig(hidden_size=200), outputs=0.5, state=0.5))
    inputs, state = torch.randn(1, 3), cell.initial_state(1)
    expected, whole = cell.eval()(inputs, state)
    outputs, dropped = cell.train()(inputs, state)
    for ours, theirs in ((outputs, expected), (dropped.h, whole.h)):
        kept = ours != 0
        assert 50 < kept.sum() < 150
        torch.testing.assert_close(ours[kept], 2 * theirs[kept])
    assert torch.equal(dropped.c, whole.c)


def test_dropout_is_the_share_that_is_dropped():
    cell = Dropout(3, DropoutConfig(LSTMConfig(hidden_size=1000), outputs=0.1)).train()
    outputs, _ = cell(torch.randn(1, 3), cell.initial_state(1))
    assert 50 < (outputs == 0).sum() < 150


def test_dropout_of_inputs_reaches_the_cell():
    cell = Dropout(1, DropoutConfig(FeedForwardConfig(hidden_size=1), inputs=0.5)).train()
    outputs = {round(cell(torch.ones(1, 1), cell.initial_state(1))[0].item(), 5) for _ in range(50)}
    assert len(outputs) == 2


def test_stack_state_is_named_layer_by_layer():
    cell = build_cell(3, StackConfig((LSTMConfig(hidden_size=2), FeedForwardConfig(), GRUConfig(hidden_size=4))))
    assert list(flatten(cell.initial_state(1))) == ["layer0.h", "layer0.c", "layer2.h"]


def test_skipping_stack_puts_out_every_layer_side_by_side():
    cell = build_cell(3, StackConfig((LSTMConfig(hidden_size=2), GRUConfig(hidden_size=4)), skip_connections=True))
    outputs, state = cell(torch.randn(2, 3), cell.initial_state(2))
    assert torch.equal(outputs, torch.cat([state.layer0.h, state.layer1.h], 1))


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: StackConfig(()), "StackConfig.cells must have at least one cell"),
        (lambda: DropoutConfig(LSTMConfig(), outputs=1.0), r"DropoutConfig.outputs must be in \[0, 1\), got 1.0"),
        (lambda: LSTMConfig(projection_clip=1.0), "LSTMConfig.projection_clip needs a projection_size"),
        (lambda: GRUConfig(activation="swish"), "GRUConfig.activation must be one of tanh, .*, identity, got 'swish'"),
        (lambda: LSTMConfig(activation="softmax"), "LSTMConfig.activation must be one of tanh, .*, got 'softmax'"),
        (lambda: BasicRNNConfig(activation=None), "BasicRNNConfig.activation must be one of tanh, .*, got None"),
        (lambda: FeedForwardConfig(activation=""), "FeedForwardConfig.activation must be one of tanh, .*, got ''"),
        (lambda: LSTMConfig(cell_clip=-1.0), "LSTMConfig.cell_clip must be at least 0, got -1.0"),
    ],
)
def test_cell_config_that_cannot_be_names_its_field(make, complaint):
    with pytest.raises(ConfigError, match=complaint):
        make()


def test_cell_config_of_nested_cells_is_made_of_their_kinds():
    values = {"kind": "stack", "cells": [{"kind": "dropout", "cell": {"kind": "gru"}, "state": 0.5}, {"kind": "lstm"}]}
    assert cell_config(values, "here") == StackConfig((DropoutConfig(GRUConfig(), state=0.5), LSTMConfig()))
    with pytest.raises(ConfigError, match=r"here\.cells\[1\]\.kind: expected one of .*, got 'glu'"):
        cell_config({"kind": "stack", "cells": [{"kind": "gru"}, {"kind": "glu"}]}, "here")


@pytest.mark.parametrize("config", [LSTMConfig, FeedForwardConfig])
def test_cell_config_of_size_0_names_field_and_value(config):
    with pytest.raises(ConfigError, match=rf"{config.__name__}\.hidden_size must be at least 1, got 0"):
        config(hidden_size=0)


def test_cell_config_from_values_is_of_their_kind():
    assert cell_config({"kind": "lstm", "hidden_size": 3, "forget_bias": 0}, "here") == LSTMConfig("lstm", 3, 0.0)
    assert cell_config({"kind": "feed-forward"}, "here") == FeedForwardConfig("feed-forward", 100)


@pytest.mark.parametrize("values", [{}, {"kind": "elman"}, {"kind": ["lstm"]}])
def test_cell_config_of_unknown_kind_names_the_known_ones(values):
    with pytest.raises(ConfigError) as error:
        cell_config(values, "model.controller")
    expected = f"model.controller.kind: expected one of {', '.join(CELLS)}, got {values.get('kind')!r}"
    assert str(error.value) == expected


def test_cell_config_with_an_option_of_another_cell_names_it():
    expected = r"model\.controller: unknown key 'forget_bias'; known keys are kind, hidden_size, layers, activation"
    with pytest.raises(ConfigError, match=expected):
        cell_config({"kind": "feed-forward", "forget_bias": 1.0}, "model.controller")


@pytest.mark.parametrize("kind", ["basic-rnn", "gru", "lstm", "feed-forward"])
def test_cell_config_from_values_takes_the_activations_that_there_are(kind):
    assert cell_config({"kind": kind}, "here").activation == "tanh"
    assert cell_config({"kind": kind, "activation": "elu"}, "here").activation == "elu"
    with pytest.raises(ConfigError, match=r"here\.activation: expected one of 'tanh', .*, 'identity', got 'swish'"):
        cell_config({"kind": kind, "activation": "swish"}, "here")
