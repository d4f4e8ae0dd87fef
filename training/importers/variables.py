"""The variables of an original, and the errors if they differ from those of the original."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.cells import LSTM
from models.contract import MemoryModel
from models.registry import AnyConfig


class ImportFailed(ValueError):
    """A file that differs from the original; the message names the variable, the expectation and the value."""


@dataclass(frozen=True)
class Imported:
    """A model with the weights of an original."""

    kind: str
    config: AnyConfig
    model: MemoryModel[Any]


class Variables:
    """The variables of an original by their own names; each is taken once, and its shape is checked."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]], where: str) -> None:
        self._left = dict(arrays)
        self._where = where

    def take(self, name: str, *shape: int) -> Tensor:
        """Return a variable. Raises ImportFailed if it is missing or has another shape."""
        array = self._left.pop(self._found(name, list(shape)))
        if array.shape != shape:
            raise ImportFailed(
                f"{self._where}: variable {name!r} must have shape {list(shape)}, got {list(array.shape)}"
            )
        if array.dtype.kind not in "fiu":
            raise ImportFailed(f"{self._where}: variable {name!r} must hold numbers, got {array.dtype}")
        with np.errstate(over="ignore"):
            values = np.ascontiguousarray(array, np.float32)
        finite = np.isfinite(values)
        if not finite.all():
            got = array[~finite][0]
            raise ImportFailed(
                f"{self._where}: variable {name!r} has values that are not finite in float32, such as {got}"
            )
        return torch.from_numpy(values)

    def take_copy(self, name: str, other: str, values: Tensor) -> None:
        """Take a variable that the original has twice. Raises ImportFailed unless it equals `other`."""
        if not torch.equal(self.take(name, *values.shape), values):
            raise ImportFailed(f"{self._where}: variable {name!r} must hold what {other!r} does, but does not")

    def shape(self, name: str, axes: int | None = None) -> tuple[int, ...]:
        """Return the shape of a variable, from which sizes follow. axes: the number that it must have, if known.

        Raises ImportFailed if it is missing or has another number of axes.
        """
        shape = self._left[self._found(name, [f"{axes} sizes" if axes else "any size"])].shape
        if axes is not None and len(shape) != axes:
            raise ImportFailed(f"{self._where}: variable {name!r} must have {axes} axes, got shape {list(shape)}")
        return shape

    def _found(self, name: str, shape: list[Any]) -> str:
        """Return the name in the file: in a checkpoint of TensorFlow it has no `:0` at its end."""
        for stored in (name, name.removesuffix(":0")):
            if stored in self._left:
                return stored
        raise self._missing(name, shape)

    def names(self) -> list[str]:
        """Return the names of the variables that are left."""
        return sorted(self._left)

    def refusal(self, reason: str) -> ImportFailed:
        """Return the error of variables that differ from the original's."""
        return ImportFailed(f"{self._where}: {reason}")

    def finish(self) -> None:
        """Raise ImportFailed if a variable was not taken."""
        if self._left:
            name = self.names()[0]
            raise ImportFailed(
                f"{self._where}: variable {name!r} of shape {list(self._left[name].shape)} has no place in the model"
            )

    def _missing(self, name: str, shape: list[Any]) -> ImportFailed:
        rest = ", ".join(self.names()) or "nothing"
        expected = ", ".join(map(str, shape))
        return ImportFailed(f"{self._where}: variable {name!r} of shape [{expected}] is missing; left are {rest}")


def fill_torch_lstm(cell: LSTM, variables: Variables, name: str, suffix: str = "") -> None:
    """Take an LSTM of torch: its gates are ordered i, f, j, o, and it has two biases, but no forget_bias.

    name: the prefix of `weight_ih`, ...; suffix: its end.
    """
    size, seen = cell.config.hidden_size, cell.gates.in_features
    inward = variables.take(f"{name}weight_ih{suffix}", 4 * size, seen - size)
    inner = variables.take(f"{name}weight_hh{suffix}", 4 * size, size)
    biases = (variables.take(f"{name}{bias}{suffix}", 4 * size) for bias in ("bias_ih", "bias_hh"))
    cell.gates.weight.copy_(_in_our_order(torch.cat([inward, inner], 1)))
    cell.gates.bias.copy_(_in_our_order(sum(biases, torch.zeros(4 * size))))


def _in_our_order(gates: Tensor) -> Tensor:
    """i, f, j, o -> i, j, f, o, along the first axis."""
    input_gate, forget_gate, candidate, output_gate = gates.chunk(4)
    return torch.cat([input_gate, candidate, forget_gate, output_gate])


def fill_linear(layer: nn.Linear, variables: Variables, weight: str, bias: str) -> None:
    """Take a linear layer x @ weight + bias, as TensorFlow computes it."""
    layer.weight.copy_(variables.take(weight, layer.in_features, layer.out_features).T)
    layer.bias.copy_(variables.take(bias, layer.out_features))


def fill_rows(weight: Tensor, bias: Tensor, parts: list[Tensor]) -> None:
    """Fill a layer's weight [n, m] and bias [n] from rows, [., m + 1] in each part: m weights, then the bias."""
    rows = torch.cat(parts)
    weight.copy_(rows[:, :-1])
    bias.copy_(rows[:, -1])
