"""Two threads beside one, and beside what two threads can gain on this machine just then."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import torch

from benchmarks.kernels.floor import matrix_product
from benchmarks.kernels.plan import KernelsPlan
from benchmarks.timing import medians

PRODUCTS = 16
"""Matrix products that threads share: far longer than it takes to hand them out."""


class Gain(NamedTuple):
    """Seconds that a call takes by one thread and by two, and how much faster two are at what shares nothing."""

    one: float
    two: float
    possible: float


def gain(one: Callable[[], object], two: Callable[[], object], plan: KernelsPlan) -> Gain:
    """Time a call by one thread and by two, in turns with matrix products by one and by two."""
    calls = {"one": one, "two": two, "products by one": products_by(1), "products by two": products_by(2)}
    times = medians(calls, plan.rounds, plan.seconds)
    return Gain(times["one"], times["two"], times["products by one"] / times["products by two"])


def products_by(threads: int) -> Callable[[], object]:
    """Return a call of PRODUCTS matrix products that so many threads share."""
    pool = ThreadPoolExecutor(threads, initializer=partial(torch.set_num_threads, 1))  # a thread's own setting
    products = [matrix_product().call for _ in range(threads)]

    def multiply(product: Callable[[], object]) -> None:
        for _ in range(PRODUCTS // threads):
            product()

    return lambda: list(pool.map(multiply, products))
