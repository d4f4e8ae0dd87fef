"""The layer-normalised LSTMs of Sonnet and of ADNC, whose weights no importer reads: filled in by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.cells import LSTM, LSTMConfig

FILE = Path(__file__).parent / "lstm_layer_norm.npz"


def variables(name):
    with np.load(FILE) as archive:
        return {key.removeprefix(f"{name}/"): torch.from_numpy(archive[key]) for key in archive if key.startswith(name)}


def sonnet(record):
    """Its gates are ordered i, j, f, o, and it adds 1 to the forget gate."""
    cell = LSTM(4, LSTMConfig(hidden_size=6, layer_norm="sonnet"))
    norm, gates = "params/lstm/layer_norm/", "params/lstm/"
    cell.gates.weight.copy_(record[f"{gates}w_gates:0"].T)
    cell.gates.bias.copy_(record[f"{gates}b_gates:0"] + record[f"{norm}beta:0"])
    cell.gate_scale.copy_(record[f"{norm}gamma:0"].view(4, 6))
    return cell


def adnc(record):
    """Its gates are ordered f, i, o, j, and it adds nothing to the forget gate."""
    cell = LSTM(4, LSTMConfig(hidden_size=6, layer_norm="adnc", forget_bias=0))
    ours = [1, 3, 0, 2]
    cell.gates.weight.copy_(record["params/w_ifco:0"].T.view(4, 6, -1)[ours].flatten(0, 1))
    bias = record["params/b_ifco:0"] + record["params/ln_w_ifco/beta:0"]
    cell.gates.bias.copy_(bias.view(4, 6)[ours].flatten())
    cell.gate_scale.copy_(record["params/ln_w_ifco/scale:0"].view(4, 6)[ours])
    cell.cell_norm.weight.copy_(record["params/ln_out_act/scale:0"])
    cell.cell_norm.bias.copy_(record["params/ln_out_act/beta:0"])
    return cell


@pytest.mark.parametrize("original", [sonnet, adnc])
@torch.no_grad()
def test_layer_normalised_lstm_equals_the_original_at_every_step(original):
    record = variables(original.__name__)
    cell = original(record)
    state = cell.initial_state(3)
    for inputs, outputs, cells in zip(record["inputs"], record["outputs"], record["cells"], strict=True):
        h, state = cell(inputs, state)
        torch.testing.assert_close(h, outputs, rtol=0, atol=1e-5)
        torch.testing.assert_close(state.c, cells, rtol=0, atol=1e-5)
