"""The recorded rollouts, in one form for all originals: outputs, and the states by Engram's names."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.backends.base import Array
from tests.reference.ntm_lasagne import Network

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Rollout:
    """format, file, cell: options of `engram import`. states: leaf -> [T, B, ...]; last: leaves of the last step."""

    format: str
    file: Path
    cell: str | None
    inputs: Array
    outputs: Array
    states: dict[str, Array]
    last: dict[str, Array]


def dnc(name: str, original: str = "deepmind-dnc") -> Rollout:
    record = _load(HERE / f"{name}.npz")
    same = ("memory", "read_weights", "write_weights", "usage", "precedence_weights")
    states = {leaf: record[leaf] for leaf in same} | {"read_vectors": record["access_output"]}
    states |= {"controller.h": record["controller_hidden"], "controller.c": record["controller_cell"]}
    last = {"link": record["last_link"]}
    return Rollout(original, HERE / f"{name}.npz", None, record["inputs"], record["outputs"], states, last)


def pytorch_ntm(name: str, suffix: str = "npz") -> Rollout:
    """Its heads are along axis 1, a read head, a write head, and so on; so are the controller's layers."""
    record = _load(HERE / f"{name}.npz")
    weights = record["head_weights"].swapaxes(1, 2)
    states = {"memory": record["memory"], "read_vectors": record["reads"].swapaxes(1, 2)}
    states |= {"read_weights": weights[:, :, 0::2], "write_weights": weights[:, :, 1::2]}
    layers = json.loads(str(record["config"]))["controller_layers"]
    for number in range(layers):
        layer = f"controller.layer{number}." if layers > 1 else "controller."
        states |= {
            f"{layer}h": record["controller_hidden"][:, number],
            f"{layer}c": record["controller_cell"][:, number],
        }
    return Rollout("pytorch-ntm", HERE / f"{name}.{suffix}", None, record["inputs"], record["outputs"], states, {})


def ntm_lasagne(name: str) -> Rollout:
    record = _load(HERE / f"{name}.npz")
    count = sum(variable.startswith("params/") for variable in record)
    parameters, config = [record[f"params/arr_{number}"] for number in range(count)], json.loads(str(record["config"]))
    network = Network(parameters, **json.loads(str(record["network"])), config=config)
    outputs, states = network.run(record["inputs"])
    return Rollout("ntm-lasagne", HERE / f"{name}.npz", None, record["inputs"], outputs, states, {})


def tf_rnn_cell(cell: str, file: str) -> Rollout:
    """Its states are numbered layer by layer, an LSTM's c before its h."""
    record = {
        name.removeprefix(f"{cell}/"): array
        for name, array in _load(HERE / file).items()
        if name.startswith(f"{cell}/")
    }
    described = json.loads(str(record["config"]))["cells"]
    leaves = []
    for number, layer in enumerate(described):
        prefix = f"controller.layer{number}." if len(described) > 1 else "controller."
        leaves += [prefix + leaf for leaf in (("c", "h") if "LSTM" in layer["type"] else ("h",))]
    states = {leaf: record[f"state{number}"] for number, leaf in enumerate(leaves)}
    return Rollout("tf-rnn-cell", HERE / file, cell, record["inputs"], record["outputs"], states, {})


ROLLOUTS: dict[str, Callable[[], Rollout]] = {
    "deepmind_dnc_1write": lambda: dnc("deepmind_dnc_1write"),
    "deepmind_dnc_2writes": lambda: dnc("deepmind_dnc_2writes"),
    "deepmind_dnc_3writes": lambda: dnc("deepmind_dnc_3writes"),
    "dnc_pytorch_1write": lambda: dnc("dnc_pytorch_1write", "dnc-pytorch"),
    "dnc_pytorch_2writes": lambda: dnc("dnc_pytorch_2writes", "dnc-pytorch"),
    "ntm_lasagne_dense": lambda: ntm_lasagne("ntm_lasagne_dense"),
    "ntm_lasagne_recurrent": lambda: ntm_lasagne("ntm_lasagne_recurrent"),
    "ntm_lasagne_gru": lambda: ntm_lasagne("ntm_lasagne_gru"),
    "ntm_lasagne_lstm": lambda: ntm_lasagne("ntm_lasagne_lstm"),
    "pytorch_ntm_1head": lambda: pytorch_ntm("pytorch_ntm_1head"),
    "pytorch_ntm_2heads_2layers": lambda: pytorch_ntm("pytorch_ntm_2heads_2layers"),
    "pytorch_ntm_state_dict": lambda: pytorch_ntm("pytorch_ntm_2heads_2layers", "pt"),
}


def _load(file: Path) -> dict[str, Array]:
    with np.load(file) as archive:
        return dict(archive)


def _cells(file: str) -> list[str]:
    return sorted(name.removesuffix("/config") for name in _load(HERE / file) if name.endswith("/config"))


for _file in ("tf_rnn_cells.npz", "tf_rnn_cells_more.npz"):
    for _cell in _cells(_file):
        ROLLOUTS[f"tf_{_cell}"] = lambda cell=_cell, file=_file: tf_rnn_cell(cell, file)  # type: ignore[misc]
