"""Weights as the optimisers of the kernels read them: in one array, with their gradients."""

import itertools
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor, nn

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

    The array is the memory of the model's own parameters, and that of the gradients the memory of theirs.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], optimizer: str, dtype: DTypeLike) -> None:
        ends = list(itertools.accumulate(parameter.numel() for parameter in parameters.values()))
        self._places = dict(zip(parameters, itertools.starmap(slice, itertools.pairwise([0, *ends])), strict=True))
        self._parameters = dict(parameters)
        values, gradients, trained = np.zeros((3, padded(ends[-1] if ends else 0, WIDE)), dtype)
        self.array = TrainedArray(values, gradients, trained, optimizer)
        self._parts = [self._part(name) for name in self._places]
        self.begin()

    def begin(self) -> None:
        """Clear the gradients, and take back parameters that were given other memory, or another gradient."""
        self.array.gradients[:] = 0
        for parameter, values, gradient, trained in self._parts:
            if parameter.data_ptr() != values.data_ptr():
                values.copy_(parameter.detach())
                parameter.data = values
            parameter.grad = gradient
            trained[...] = parameter.requires_grad

    def gradients(self) -> dict[str, Array]:
        return {name: self._own(self.array.gradients, name).copy() for name in self._places}

    def kept(self) -> dict[str, dict[str, Array]]:
        """Return a copy of the arrays that the optimiser keeps, by the name of the weight and their own."""
        arrays = self.array.kept.items()
        return {name: {kind: self._own(array, name).copy() for kind, array in arrays} for name in self._places}

    def restore(self, kept: Mapping[str, Mapping[str, Array]]) -> None:
        """Replace the arrays that the optimiser keeps by what `kept` returned."""
        for name, (kind, array) in itertools.product(self._places, self.array.kept.items()):
            self._own(array, name)[...] = kept[name][kind]

    def _part(self, name: str) -> tuple[nn.Parameter, Tensor, Tensor, Array]:
        """Return a parameter with its own parts of the values, of the gradients and of `trained`."""
        values, gradients, trained = (
            self._own(array, name) for array in (self.array.values, self.array.gradients, self.array.trained)
        )
        return self._parameters[name], torch.from_numpy(values), torch.from_numpy(gradients), trained

    def _own(self, array: Array, name: str) -> Array:
        """Return the part of an array that belongs to a weight, in its shape."""
        return array[self._places[name]].reshape(self._parameters[name].shape)
