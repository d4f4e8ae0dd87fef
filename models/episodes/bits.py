"""Tasks of bit vectors: the parts that their sequences share."""

from collections.abc import Sequence

import numpy as np

from models.episodes.base import Array, Phase, Random, Sample


def random_bits(random: Random, *shape: int) -> Array:
    """Return fair bits as numbers."""
    return random.integers(0, 2, shape).astype(np.float32)


def heard_and_said(
    heard: Array, due: Array, *, labels: Sequence[str], ask: int | None = None, pattern: Array, **facts: object
) -> Sample:
    """Return the sample in which `due` is to be said, in silence, behind `heard`.

    heard: [steps, input_size]; due: [steps, output_size]; ask: the step at which the question begins, if there is one.
    """
    start, steps = len(heard), len(heard) + len(due)
    inputs = np.concatenate([heard, np.zeros((len(due), heard.shape[1]), np.float32)])
    targets = np.concatenate([np.zeros((start, due.shape[1]), np.float32), due])
    asks = () if ask is None else (Phase("ask", ask, start),)
    phases = (Phase("listen", 0, start if ask is None else ask), *asks, Phase("say", start, steps))
    return Sample(inputs, targets, np.arange(steps) >= start, phases, tuple(labels), pattern, facts=facts)


def shown(vectors: Array, channels: int) -> Array:
    """Return vectors with silent channels behind theirs: [count, bits] -> [count, channels]."""
    return np.pad(vectors, ((0, 0), (0, channels - vectors.shape[1])))


def flag(channels: int, channel: int, value: float = 1) -> Array:
    """Return the step that has a value in one channel: [1, channels]."""
    step = np.zeros((1, channels), np.float32)
    step[0, channel] = value
    return step


def numbered(count: int) -> list[str]:
    """Return "1", "2", ..."""
    return [str(number) for number in range(1, count + 1)]
