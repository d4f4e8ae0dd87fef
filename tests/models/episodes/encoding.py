"""Samples beside the episodes of training: the same sequence in both."""

import numpy as np
import torch

from models.episodes.base import Sample
from training.tasks import Episode, Task


def drawn(task: Task, seed: int = 1, count: int = 8) -> list[Episode]:
    """Return episodes of one sequence each, with sizes of their own."""
    generator = torch.Generator().manual_seed(seed)
    return [task.sample(generator, 1) for _ in range(count)]


def episode_of(sample: Sample) -> Episode:
    """Return a sample as the episode of training."""
    assert sample.targets is not None
    assert sample.mask is not None
    parts = (sample.inputs, sample.targets, sample.mask.astype(np.float32))
    tensors = (torch.from_numpy(part.astype(np.float32)).unsqueeze(1) for part in parts)
    return Episode(*tensors, lengths=torch.tensor([len(sample.inputs)]))


def differences(sample: Sample, episode: Episode) -> list[str]:
    """Return the parts in which a sample differs from an episode of one sequence."""
    own = episode_of(sample)
    return [
        name for name in ("inputs", "targets", "mask") if not torch.equal(getattr(own, name), getattr(episode, name))
    ]
