"""The interface vector: one linear layer on the controller's output, cut into named parts."""

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

Controls = TypeVar("Controls", bound=NamedTuple)


def hold(controls: Controls, force: Mapping[str, Tensor]) -> Controls:
    """Return activated controls with forced gates at their values.

    force: gates by the names of their fields, each in the shape of one row; NaN where an element is free.
    """
    if not force:
        return controls
    held = {name: torch.where(values.isnan(), getattr(controls, name), values) for name, values in force.items()}
    return controls._replace(**held)


class InterfaceLayer(nn.Linear):
    """A linear layer whose output is returned in named parts, so that no offset is counted by hand.

    parts: the shape of each part without the batch axis, e.g. {"erase_vectors": (V, W), "write_gate": (V,)}.
    """

    def __init__(self, input_size: int, parts: Mapping[str, tuple[int, ...]]) -> None:
        self.parts = dict(parts)
        self.sizes = [math.prod(shape) for shape in parts.values()]
        super().__init__(input_size, sum(self.sizes))
        nn.init.xavier_uniform_(self.weight)
        nn.init.zeros_(self.bias)

    def cut(self, hidden: Tensor) -> dict[str, Tensor]:
        """hidden: [B, input_size]. Returns {name: [B, *shape]}, before any activation."""
        pieces = torch.split(self(hidden), self.sizes, dim=1)
        return {
            name: piece.reshape(-1, *shape) for (name, shape), piece in zip(self.parts.items(), pieces, strict=True)
        }

    def each(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Yield the weight [size, input_size] and the bias [size] of each part, as views, with its name."""
        yield from zip(
            self.parts, torch.split(self.weight, self.sizes), torch.split(self.bias, self.sizes), strict=True
        )
