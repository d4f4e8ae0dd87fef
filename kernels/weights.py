"""Weights as the optimisers of the kernels read them: in one array, with their gradients."""

import itertools
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import nn

from kernels.layout import WIDE, Weights
from kernels.packing import Array, padded

KEPT = {"adam": ("mean", "square"), "rmsprop": ("mean", "square", "change")}
"""The arrays that an optimiser keeps of the weights."""


class TrainedArray:
    """Weights in one array of numbers, their gradients, and the arrays that an optimiser keeps of them.

    trained: 1 for a weight, 0 for a number that stays as it is.
    """

    def __init__(self, values: Array, gradients: Array, trained: Array, optimizer: str) -> None:
        self.values, self.gradients, self.trained = values, gradients, trained
        self.kept = {name: np.zeros_like(values) for name in KEPT[optimizer]}

    @property
    def structure(self) -> Weights:
        """The array as the kernels read it."""
        arrays = {"values": self.values, "gradients": self.gradients, "trained": self.trained, **self.kept}
        return Weights(count=len(self.values), **{name: array.ctypes.data for name, array in arrays.items()})


class OtherWeights:
    """Weights of a model that lie side by side in one array, and whose gradients come from torch.

    The array becomes the memory of the model's own parameters, and that of the gradients the memory of theirs.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], optimizer: str, dtype: DTypeLike) -> None:
        ends = list(itertools.accumulate(parameter.numel() for parameter in parameters.values()))
        self._places = dict(zip(parameters, itertools.starmap(slice, itertools.pairwise([0, *ends])), strict=True))
        self._shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
        values, gradients, trained = np.zeros((3, padded(ends[-1] if ends else 0, WIDE)), dtype)
        self.array = TrainedArray(values, gradients, trained, optimizer)
        for name, parameter in parameters.items():
            self._own(trained, name)[:] = 1
            self._own(values, name)[:] = parameter.detach().numpy()
            parameter.data = torch.from_numpy(self._own(values, name))
            parameter.grad = torch.from_numpy(self._own(gradients, name))

    def clear_gradients(self) -> None:
        self.array.gradients[:] = 0

    def gradients(self) -> dict[str, Array]:
        return {name: self._own(self.array.gradients, name).copy() for name in self._places}

    def kept(self) -> dict[str, dict[str, Array]]:
        """Return a copy of the arrays that the optimiser keeps, by the name of the weight and their own."""
        arrays = self.array.kept.items()
        return {name: {kind: self._own(array, name).copy() for kind, array in arrays} for name in self._places}

    def restore(self, kept: Mapping[str, Mapping[str, Array]]) -> None:
        """Replace the arrays that the optimiser keeps by what `kept` returned."""
        for name, (kind, array) in itertools.product(self._places, self.array.kept.items()):
            self._own(array, name)[:] = kept[name][kind]

    def _own(self, array: Array, name: str) -> Array:
        """Return the part of an array that belongs to a weight, in its shape."""
        return array[self._places[name]].reshape(self._shapes[name])
