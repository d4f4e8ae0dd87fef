"""Count the wrong bits of a model on fresh sequences, by length."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.contract import MemoryModel
from models.kernels.sequence import Unroll, unroll_by
from training.tasks import Task

EVALUATION_SEED = 2_000_000_011
"""The default seed of evaluation sequences; training draws its own from the seed of the run."""

BATCH = 50


@dataclass(frozen=True)
class LengthErrors:
    """The errors at one length, over `sequences` fresh sequences."""

    length: int
    sequences: int
    errors_per_sequence: float
    wrong_sequences: int
    bits_per_sequence: int


@torch.no_grad()
def bit_errors(
    model: MemoryModel[Any],
    task: Task,
    length: int,
    sequences: int,
    seed: int,
    memory_size: int | None = None,
    unroll: Unroll | None = None,
) -> Tensor:
    """Return the wrong bits of each of `sequences` sequences of this length, drawn from `seed`: [sequences].

    unroll: that of the model, if it is there already.
    """
    generator = torch.Generator().manual_seed(seed)
    unroll = unroll or unroll_by("auto", model)
    device = next(model.parameters()).device
    errors = []
    for start in range(0, sequences, BATCH):
        rows = min(BATCH, sequences - start)
        episode = task.sample(generator, rows, length)
        outputs, _ = unroll(episode.inputs.to(device), model.initial_state(rows, memory_size))
        errors.append(task.errors(outputs.cpu(), episode))
    return torch.cat(errors).float()


def evaluate(
    model: MemoryModel[Any],
    task: Task,
    lengths: Iterable[int],
    sequences: int,
    seed: int = EVALUATION_SEED,
    after_length: Callable[[LengthErrors], object] | None = None,
    memory_size: int | None = None,
) -> list[LengthErrors]:
    """Return the errors at each length; `after_length` is called as soon as one is known.

    memory_size: another number of memory slots than the model was trained with.
    """
    rows = []
    unroll = unroll_by("auto", model)
    for length in lengths:
        errors = bit_errors(model, task, length, sequences, seed, memory_size, unroll)
        row = LengthErrors(
            length=length,
            sequences=sequences,
            errors_per_sequence=errors.mean().item(),
            wrong_sequences=int((errors > 0).sum()),
            bits_per_sequence=length * task.output_size,
        )
        rows.append(row)
        if after_length:
            after_length(row)
    return rows
