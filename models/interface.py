"""The interface vector: one linear layer on the controller's output, cut into named parts."""

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from models import addressing

Controls = TypeVar("Controls", bound=NamedTuple)


def hold(controls: Controls, force: Mapping[str, Tensor]) -> Controls:
    """Return activated controls with forced gates at their values.

    force: gates by the names of their fields, each in the shape of one row; NaN where an element is free.
    """
    if not force:
        return controls
    held = {name: torch.where(values.isnan(), getattr(controls, name), values) for name, values in force.items()}
    return controls._replace(**held)


class ProgramSelector(nn.Module):
    """The weights by which stored programs are mixed: a content look-up among their keys.

    Le, Tran & Venkatesh, "Neural Stored-program Memory", ICLR 2020, with one look-up for all heads.
    programs: P; key_size: K.
    """

    def __init__(self, input_size: int, programs: int, key_size: int) -> None:
        super().__init__()
        self.keys = nn.Parameter(torch.randn(programs, key_size))
        self.query = nn.Linear(input_size, key_size + 1)
        nn.init.xavier_uniform_(self.query.weight)
        nn.init.zeros_(self.query.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return softmax over p of beta D(q, k_p): [B, input_size] -> [B, P], rows sum to 1.

        The query q, [B, K], and the strength beta, [B], softplus of the last number, are linear in hidden.
        """
        query, strength = torch.split(self.query(hidden), [self.keys.shape[1], 1], dim=1)
        similarities = addressing.cosine_similarity(self.keys.unsqueeze(0), query.unsqueeze(1))
        return addressing.content_weights(similarities, functional.softplus(strength)).squeeze(1)


class InterfaceLayer(nn.Linear):
    """A linear layer whose output is returned in named parts, so that no offset is counted by hand.

    parts: the shape of each part without the batch axis, e.g. {"erase_vectors": (V, W), "write_gate": (V,)}.
    programs: how many such layers there are, P, one below the other in `weight` and `bias`. Of several, each step takes
    the mixture that a ProgramSelector finds; program_key_size: K, of its keys.
    """

    def __init__(
        self, input_size: int, parts: Mapping[str, tuple[int, ...]], programs: int = 1, program_key_size: int = 1
    ) -> None:
        self.parts = dict(parts)
        self.sizes = [math.prod(shape) for shape in parts.values()]
        self.programs = programs
        super().__init__(input_size, programs * sum(self.sizes))
        for weight in self.weight.detach().chunk(programs):
            nn.init.xavier_uniform_(weight)
        nn.init.zeros_(self.bias)
        self.selector = ProgramSelector(input_size, programs, program_key_size) if programs > 1 else None

    def cut(self, hidden: Tensor) -> dict[str, Tensor]:
        """hidden: [B, input_size]. Returns {name: [B, *shape]}, before any activation.

        Of several programs, also "program_weights": [B, P].
        """
        vectors = self(hidden)
        if self.selector is None:
            return self._cut(vectors)
        weights = self.selector(hidden)
        mixed = weights.unsqueeze(1) @ torch.unflatten(vectors, 1, (self.programs, -1))
        return self._cut(mixed.squeeze(1)) | {"program_weights": weights}

    def _cut(self, vectors: Tensor) -> dict[str, Tensor]:
        pieces = torch.split(vectors, self.sizes, dim=1)
        return {
            name: piece.reshape(-1, *shape) for (name, shape), piece in zip(self.parts.items(), pieces, strict=True)
        }

    def each(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Yield the weight [size, input_size] and the bias [size] of each part, as views, with its name.

        Of several programs, the parts of one after those of the other.
        """
        names, sizes = [*self.parts] * self.programs, self.sizes * self.programs
        yield from zip(names, torch.split(self.weight, sizes), torch.split(self.bias, sizes), strict=True)
