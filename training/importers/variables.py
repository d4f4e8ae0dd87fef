"""The variables of an original, and the errors where they are not what the original has."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.contract import MemoryModel
from models.registry import AnyConfig


class ImportFailed(ValueError):
    """A file that does not hold what the original has; the message names the variable, what was expected, what came."""


@dataclass(frozen=True)
class Imported:
    """A model with the weights of an original."""

    kind: str
    config: AnyConfig
    model: MemoryModel[Any]


class Variables:
    """The variables of an original by their own names; each is taken once, in the shape that it must have."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]], where: str) -> None:
        self._left = dict(arrays)
        self._where = where

    def take(self, name: str, *shape: int) -> Tensor:
        """Return a variable. Raises ImportFailed where it is missing or of another shape."""
        if name not in self._left:
            raise self._missing(name, list(shape))
        array = self._left.pop(name)
        if array.shape != shape:
            raise ImportFailed(
                f"{self._where}: variable {name!r} must have shape {list(shape)}, got {list(array.shape)}"
            )
        if array.dtype.kind not in "fiu":
            raise ImportFailed(f"{self._where}: variable {name!r} must hold numbers, got {array.dtype}")
        if not np.isfinite(array).all():
            raise ImportFailed(f"{self._where}: variable {name!r} has values that are not finite")
        return torch.from_numpy(np.ascontiguousarray(array, np.float32))

    def take_copy(self, name: str, other: str, values: Tensor) -> None:
        """Take a variable that the original has twice. Raises ImportFailed unless it holds what `other` does."""
        if not torch.equal(self.take(name, *values.shape), values):
            raise ImportFailed(f"{self._where}: variable {name!r} must hold what {other!r} does, but does not")

    def shape(self, name: str, axes: int) -> tuple[int, ...]:
        """Return the shape of a variable, from which sizes follow. Raises ImportFailed where it has no such axes."""
        if name not in self._left:
            raise self._missing(name, [f"{axes} sizes"])
        shape = self._left[name].shape
        if len(shape) != axes:
            raise ImportFailed(f"{self._where}: variable {name!r} must have {axes} axes, got shape {list(shape)}")
        return shape

    def names(self) -> list[str]:
        """Return the names of the variables that are left."""
        return sorted(self._left)

    def finish(self) -> None:
        """Raise ImportFailed where a variable was not taken."""
        if self._left:
            name = self.names()[0]
            raise ImportFailed(
                f"{self._where}: variable {name!r} of shape {list(self._left[name].shape)} has no place in the model"
            )

    def _missing(self, name: str, shape: list[Any]) -> ImportFailed:
        rest = ", ".join(self.names()) or "nothing"
        told = ", ".join(map(str, shape))
        return ImportFailed(f"{self._where}: variable {name!r} of shape [{told}] is missing; left are {rest}")


def fill_linear(layer: nn.Linear, variables: Variables, weight: str, bias: str) -> None:
    """Take a linear layer that computes x @ weight + bias, as TensorFlow does."""
    layer.weight.copy_(variables.take(weight, layer.in_features, layer.out_features).T)
    layer.bias.copy_(variables.take(bias, layer.out_features))
