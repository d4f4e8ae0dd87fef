"""Our models with the weights of public implementations, whose outputs they must reproduce."""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.peers import CLIP, DNC_MEMORY_SIZE, DNC_WORD_SIZE, HIDDEN_SIZE, INPUT_SIZE, OUTPUT_SIZE, Peer
from models.contract import MemoryModel
from training.importers import read_original

MTHROK_LAYERS = {
    "output_linear": "_output",
    "memory_access/write_vectors": "_access._write_vectors.0",
    "memory_access/erase_vectors": "_access._erase_vectors.0",
    "memory_access/free_gate": "_access._free_gate.0",
    "memory_access/allocation_gate": "_access._alloc_gate.0",
    "memory_access/write_gate": "_access._write_gate.0",
    "memory_access/read_mode": "_access._read_mode.0",
    "memory_access/write_keys": "_access._write_keys.0",
    "memory_access/write_strengths": "_access._write_strengths",
    "memory_access/read_keys": "_access._read_keys.0",
    "memory_access/read_strengths": "_access._read_strengths",
}
"""DeepMind's name of a layer -> the name in mthrok's port."""


def pytorch_ntm_twin(peer: Peer) -> MemoryModel[Any]:
    """Return our NTM as `engram import --format pytorch-ntm` makes it."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "weights.pt"
        torch.save(peer.network.state_dict(), file)
        return read_original("pytorch-ntm", file).model


def mthrok_dnc_twin(peer: Peer) -> MemoryModel[Any]:
    """Return our DNC as `engram import --format deepmind-dnc` makes it of weights that have DeepMind's names.

    Its LSTM is torch's, with gates i, f, j, o and two biases; DeepMind's has i, j, f, o and one, and adds 1 to f.
    """
    weights: dict[str, Tensor] = peer.network.state_dict()
    inward, inner = weights["_controller.weight_ih"], weights["_controller.weight_hh"]
    bias = deepmind_gates(weights["_controller.bias_ih"] + weights["_controller.bias_hh"])
    bias[2 * HIDDEN_SIZE : 3 * HIDDEN_SIZE] -= 1
    variables = {"lstm/w_gates": deepmind_gates(torch.cat([inward, inner], 1)).T, "lstm/b_gates": bias}
    for theirs, name in MTHROK_LAYERS.items():
        variables[f"{theirs}/w"] = weights[f"{name}.weight"].T
        variables[f"{theirs}/b"] = weights[f"{name}.bias"]
    config = {
        "input_size": INPUT_SIZE,
        "output_size": OUTPUT_SIZE,
        "memory_size": DNC_MEMORY_SIZE,
        "word_size": DNC_WORD_SIZE,
        "num_reads": peer.read_heads,
        "num_writes": 1,
        "hidden_size": HIDDEN_SIZE,
        "clip_value": CLIP,
    }
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "weights.npz"
        arrays = {f"dnc/{name}:0": variable.numpy() for name, variable in variables.items()}
        np.savez(file, config=np.array(json.dumps(config)), **arrays)  # type: ignore[arg-type]
        return read_original("deepmind-dnc", file).model


def deepmind_gates(gates: Tensor) -> Tensor:
    """i, f, j, o -> i, j, f, o, along the first axis."""
    input_gate, forget_gate, candidate, output_gate = gates.chunk(4)
    return torch.cat([input_gate, candidate, forget_gate, output_gate])
