"""Two threads beside one, and beside the gain that two threads can have on this machine at that moment."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import torch

from benchmarks.kernels.floor import matrix_product
from benchmarks.timing import medians

PRODUCTS = 16
"""Matrix products that threads share: enough to take far longer than handing them out."""


class Gain(NamedTuple):
    """Seconds of a call by one thread and by two, and the gain of two threads at work that shares nothing."""

    one: float
    two: float
    possible: float


def gain(one: Callable[[], object], two: Callable[[], object], rounds: int, seconds: float) -> Gain:
    """Time a call by one thread and by two, in turns with matrix products by one and by two."""
    calls = {"one": one, "two": two, "products by one": products_by(1), "products by two": products_by(2)}
    times = medians(calls, rounds, seconds)
    return Gain(times["one"], times["two"], times["products by one"] / times["products by two"])


def products_by(threads: int) -> Callable[[], object]:
    """Return a call of PRODUCTS matrix products that `threads` threads share."""
    pool = ThreadPoolExecutor(threads, initializer=partial(torch.set_num_threads, 1))  # the setting of this thread
    products = [matrix_product().call for _ in range(threads)]

    def multiply(product: Callable[[], object]) -> None:
        for _ in range(PRODUCTS // threads):
            product()

    return lambda: list(pool.map(multiply, products))
