"""TensorFlow's tf.nn.rnn_cell: basic, GRU and LSTM cells, and stacks of them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from models.cells import GRU, LSTM, BasicRNN, BasicRNNConfig, GRUConfig, LSTMConfig, Stack, StackConfig
from models.config import ConfigError, from_values
from models.rnn import RNN, RNNConfig
from training.importers.variables import Imported, Variables, fill_linear

SCOPES = {
    "BasicRNNCell": "basic_rnn_cell",
    "GRUCell": "gru_cell",
    "BasicLSTMCell": "basic_lstm_cell",
    "LSTMCell": "lstm_cell",
}
"""The scope of the variables of each type of cell."""

WITHOUT_EFFECT = {"type", "name", "dtype", "reuse", "trainable", "initializer", "state_is_tuple"}
WITHOUT_EFFECT |= {"num_unit_shards", "num_proj_shards", "kernel_initializer", "bias_initializer"}
"""Further options in a cell's description, which do not change its outputs."""


def tf_rnn_cell(config: Mapping[str, Any], variables: Variables) -> Imported:
    described = config["cells"]
    if not isinstance(described, list) or not described:
        raise TypeError(f"cells must be a list of at least one, got {described!r}")
    scopes = [_scope(cell) for cell in described]
    if len(scopes) > 1:
        scopes = [f"multi_rnn_cell/cell_{number}/{scope}" for number, scope in enumerate(scopes)]
    cells = [_tf_cell_config(cell) for cell in described]
    first_kernel = f"{scopes[0]}/{'gates/' if described[0]['type'] == 'GRUCell' else ''}kernel:0"
    model_config = RNNConfig(
        input_size=variables.shape(first_kernel, 2)[0] - _output_size(cells[0]),
        output_size=_output_size(cells[-1]),
        controller=cells[0] if len(cells) == 1 else StackConfig(tuple(cells)),
        readout=False,
    )
    model = RNN(model_config)
    layers = list(model.controller.cells) if isinstance(model.controller, Stack) else [model.controller]
    for layer, scope in zip(layers, scopes, strict=True):
        _fill_tf_cell(layer, scope, variables)
    return Imported("rnn", model_config, model)


def _tf_cell_config(described: Mapping[str, Any]) -> BasicRNNConfig | GRUConfig | LSTMConfig:
    """Return the config of a cell from its constructor's options, with the constructor's defaults."""
    options = {name: value for name, value in described.items() if name not in WITHOUT_EFFECT and value is not None}
    size = options.pop("num_units", None)
    if type(size) is not int:
        raise TypeError(f"num_units of a cell must be a whole number, got {size!r}")
    values = {"hidden_size": size, "activation": options.pop("activation", "tanh")}
    cell: type[BasicRNNConfig | GRUConfig | LSTMConfig]
    cell = {"BasicRNNCell": BasicRNNConfig, "GRUCell": GRUConfig}.get(described["type"], LSTMConfig)
    if cell is LSTMConfig:
        projection = options.pop("num_proj", 0)
        projection_clip = options.pop("proj_clip", 0)
        values |= {
            "forget_bias": float(options.pop("forget_bias", 1)),
            "peepholes": bool(options.pop("use_peepholes", False)),
            "cell_clip": float(options.pop("cell_clip", 0)),
            "projection_size": projection,
            "projection_clip": float(projection_clip if projection else 0),
        }
    if options:
        name, value = next(iter(options.items()))
        raise ConfigError(f"{name} = {value!r} of a {described['type']} is not supported")
    return from_values(cell, values, "cell")


def _scope(described: Mapping[str, Any]) -> str:
    kind = described["type"]
    if kind not in SCOPES:
        raise ConfigError(f"type of a cell: expected one of {', '.join(SCOPES)}, got {kind!r}")
    return SCOPES[kind]


def _output_size(config: BasicRNNConfig | GRUConfig | LSTMConfig) -> int:
    return (isinstance(config, LSTMConfig) and config.projection_size) or config.hidden_size


def _fill_tf_cell(cell: nn.Module, scope: str, variables: Variables) -> None:
    """Import cells: TensorFlow and Engram both order an LSTM's gates i, j, f, o, and a GRU's r, u."""
    if isinstance(cell, BasicRNN):
        fill_linear(cell.hidden, variables, f"{scope}/kernel:0", f"{scope}/bias:0")
    elif isinstance(cell, GRU):
        fill_linear(cell.gates, variables, f"{scope}/gates/kernel:0", f"{scope}/gates/bias:0")
        fill_linear(cell.candidate, variables, f"{scope}/candidate/kernel:0", f"{scope}/candidate/bias:0")
    elif isinstance(cell, LSTM):
        fill_linear(cell.gates, variables, f"{scope}/kernel:0", f"{scope}/bias:0")
        size = cell.config.hidden_size
        if cell.config.peepholes:
            diagonals = [variables.take(f"{scope}/w_{gate}_diag:0", size) for gate in "ifo"]
            cell.peepholes.copy_(torch.stack(diagonals))
        if cell.config.projection_size:
            kernel = variables.take(f"{scope}/projection/kernel:0", size, cell.config.projection_size)
            cell.projection.weight.copy_(kernel.T)
