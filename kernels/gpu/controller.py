"""The controller of a model, stepped by slot: an LSTM by a kernel of its own, other cells by torch."""

import copy
from typing import TypeGuard

import torch
import triton
from torch import Tensor

from kernels.gpu.launch import Launch, options_for
from kernels.gpu.linear import by_rows, product
from kernels.gpu.src import layers
from models.cells import LSTM, Cell
from models.state import flatten, unflatten

PREFIX = "controller."
"""The beginning of the names of the controller's leaves."""


class Controller:
    """Steps the controller of all rows of a batch. clip: the bound of its outputs and its state, 0 for none."""

    def __init__(self, cell: Cell, clip: float) -> None:
        self._cell, self._clip = cell, clip
        self._lstm = cell if is_plain_lstm(cell) else None
        self._by_rows = by_rows(sharing_copy(cell)) if self._lstm is None else None
        self._like = cell.initial_state(1)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the arrays of a launch, without the batch axis."""
        shapes: dict[str, tuple[int, ...]] = {"hidden": (self._cell.output_size,)}
        return shapes if self._lstm is None else shapes | {"gates": (4 * self._cell.output_size,)}

    def launch(self, launch: Launch, encoded: Tensor) -> Tensor:
        """Step the controller of all rows; return its outputs, [B, hidden_size]. encoded: the inputs, [B, I]."""
        seen = [launch.leaves["read_vectors"]] if "read_vectors" in launch.leaves else []
        if self._lstm is None:
            return self._launch_cell(launch, encoded, seen)
        return self._launch_lstm(self._lstm, launch, encoded, seen)

    def _launch_lstm(self, cell: LSTM, launch: Launch, encoded: Tensor, seen: list[Tensor]) -> Tensor:
        leaves, rows = launch.leaves, launch.rows
        h, c = leaves[f"{PREFIX}h"], leaves[f"{PREFIX}c"]
        product(cell.gates, launch.slots, rows["gates"], encoded, *seen, h)
        size = cell.output_size
        layers.lstm[(len(launch.slots),)](
            launch.slots, rows["gates"], rows["hidden"], h, c,
            cell.config.forget_bias, cell.config.cell_clip, self._clip, H=size, HP=triton.next_power_of_2(size),
            **options_for(size),
        )  # fmt: skip
        return rows["hidden"]

    def _launch_cell(self, launch: Launch, encoded: Tensor, seen: list[Tensor]) -> Tensor:
        assert self._by_rows is not None
        slots = torch.where(launch.slots < 0, launch.spare, launch.slots).long()
        names = {name: f"{PREFIX}{name}" for name in flatten(self._like)}
        state = unflatten({name: launch.leaves[leaf][slots] for name, leaf in names.items()}, self._like)
        inputs = torch.cat([encoded, *(leaf[slots].flatten(1) for leaf in seen)], 1)
        hidden, after = self._by_rows(inputs, state)
        for name, leaf in flatten(after).items():
            launch.leaves[names[name]].index_copy_(0, slots, self._bounded(leaf))
        launch.rows["hidden"].copy_(self._bounded(hidden))
        return launch.rows["hidden"]

    def _bounded(self, values: Tensor) -> Tensor:
        return values.clamp(-self._clip, self._clip) if self._clip else values


def sharing_copy(cell: Cell) -> Cell:
    """Return a copy of a cell with the same weights, whose layers can be replaced."""
    return copy.deepcopy(cell, {id(weight): weight for weight in (*cell.parameters(), *cell.buffers())})


def is_plain_lstm(cell: Cell) -> TypeGuard[LSTM]:
    """Return whether the kernel of the LSTM computes a cell."""
    if not isinstance(cell, LSTM):
        return False
    config = cell.config
    return not (config.peepholes or config.projection_size) and config.activation == "tanh"
