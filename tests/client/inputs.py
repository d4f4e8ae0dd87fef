"""Inputs of the model that the tests of the client step."""

import numpy as np

MODEL, WIDTH = "dnc-copy", 10


def sequence(steps: int, seed: int = 0) -> np.ndarray:
    """Return inputs, float32 [steps, WIDTH], of no special bits, so that a step that differs shows."""
    return np.random.default_rng(seed).random((steps, WIDTH), np.float32)


def pieces(count: int, seed: int = 0, scale: int = 1) -> list[np.ndarray]:
    """Return a sequence in so many pieces, of 1, 2, 3, 1, 2, 3, ... times `scale` steps."""
    lengths = [scale * (1 + piece % 3) for piece in range(count)]
    return np.split(sequence(sum(lengths), seed), np.cumsum(lengths)[:-1])
