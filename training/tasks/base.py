"""What a task is: a source of episodes and the measure of how well a model did on them."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits


class Episode(NamedTuple):
    """A batch of sequences of one task."""

    inputs: Tensor
    """[T, B, input_size]"""
    targets: Tensor
    """[T, B, output_size], in {0, 1}"""
    mask: Tensor
    """[T, B], 1 where an answer is asked for, else 0"""


class Task(ABC):
    """A task whose answers are bits. Subclasses are frozen dataclasses; their fields are the task's options."""

    name: str
    input_size: int
    output_size: int

    @abstractmethod
    def sample(self, generator: torch.Generator, batch_size: int, length: int | None = None) -> Episode:
        """Return `batch_size` fresh sequences of one length: the one given, else one drawn from the training range."""

    @property
    @abstractmethod
    def longest(self) -> int:
        """The longest length in training."""

    def loss(self, outputs: Tensor, episode: Episode) -> Tensor:
        """Return the mean cross-entropy in nats per bit asked for. outputs: [T, B, output_size], logits."""
        per_bit = binary_cross_entropy_with_logits(outputs, episode.targets, reduction="none")
        return (per_bit * episode.mask.unsqueeze(2)).sum() / (episode.mask.sum() * self.output_size)

    def errors(self, outputs: Tensor, episode: Episode) -> Tensor:
        """Return the number of wrong bits of each sequence: [B]. outputs: [T, B, output_size], logits."""
        wrong = (outputs > 0) != (episode.targets > 0.5)
        return (wrong * episode.mask.unsqueeze(2)).sum(dim=(0, 2))

    def render(self, episode: Episode, row: int = 0) -> str:
        """Return one sequence as text, time to the right, `#` for 1, `.` for 0, a blank where nothing is asked for."""
        inputs, targets = episode.inputs[:, row], episode.targets[:, row]
        asked = episode.mask[:, row] > 0
        lines = ["".join("#" if value > 0.5 else "." for value in channel) for channel in inputs.T.tolist()]
        lines.append("-" * inputs.shape[0])
        for channel in targets.T:
            bits = ("#" if bit > 0.5 else "." for bit in channel.tolist())
            lines.append("".join(bit if shown else " " for bit, shown in zip(bits, asked.tolist(), strict=True)))
        return "\n".join(lines)
