"""Copy: say a sequence of random vectors again ([NTM] section 4.1)."""

from dataclasses import dataclass

import torch

from models.config import ConfigError, require_at_least
from training.tasks.base import Episode, Task


@dataclass(frozen=True)
class Copy(Task):
    """Random bit vectors between a start and an end flag, to be copied in order after the end flag.

        time     0 1 2 3 4 5 6 7 8
        bits     . a b c . . . . .      `bits` channels, each vector drawn uniformly
        start    # . . . . . . . .      channel `bits`
        end      . . . . # . . . .      channel `bits` + 1
        target             a b c        asked for in the last `length` steps, T = 2 length + 2

    min_length and max_length bound the number of vectors in training.
    """

    bits: int = 8
    min_length: int = 1
    max_length: int = 20

    name = "copy"

    def __post_init__(self) -> None:
        require_at_least(self, 1, "bits", "min_length")
        if self.max_length < self.min_length:
            raise ConfigError(f"Copy.max_length must be at least min_length {self.min_length}, got {self.max_length}")

    @property
    def input_size(self) -> int:  # type: ignore[override]
        return self.bits + 2

    @property
    def output_size(self) -> int:  # type: ignore[override]
        return self.bits

    @property
    def longest(self) -> int:
        return self.max_length

    def sample(self, generator: torch.Generator, batch_size: int, length: int | None = None) -> Episode:
        if length is None:
            length = int(torch.randint(self.min_length, self.max_length + 1, (), generator=generator))
        vectors = torch.randint(0, 2, (length, batch_size, self.bits), generator=generator).float()
        steps = 2 * length + 2
        inputs = torch.zeros(steps, batch_size, self.input_size)
        inputs[0, :, self.bits] = 1
        inputs[1 : length + 1, :, : self.bits] = vectors
        inputs[length + 1, :, self.bits + 1] = 1
        targets = torch.zeros(steps, batch_size, self.bits)
        targets[length + 2 :] = vectors
        mask = torch.zeros(steps, batch_size)
        mask[length + 2 :] = 1
        return Episode(inputs, targets, mask)
