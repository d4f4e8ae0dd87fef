"""The copy task for a client: sequences to send, and the bits of the expected answer."""

import random

BITS = 8


def sequence(length: int, seed: int = 0) -> tuple[list[list[float]], list[list[int]]]:
    """Return the inputs of a copy sequence, [2 length + 2][10], and its vectors, [length][8]."""
    draw = random.Random(seed)
    vectors = [[draw.randint(0, 1) for _ in range(BITS)] for _ in range(length)]
    silence = [[0.0] * (BITS + 2) for _ in range(length)]
    start = [[0.0] * BITS + [1.0, 0.0]]
    end = [[0.0] * BITS + [0.0, 1.0]]
    return [*start, *([*map(float, vector), 0.0, 0.0] for vector in vectors), *end, *silence], vectors


def answer(outputs: list[list[float]]) -> list[list[int]]:
    """Return the bits of a model's outputs in the last part of a copy sequence."""
    length = (len(outputs) - 2) // 2
    return [[round(value) for value in step] for step in outputs[-length:]]
