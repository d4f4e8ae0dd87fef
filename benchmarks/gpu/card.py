"""The card: its name, and its speed in the two kinds of work that a step consists of."""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch

COPIED_BYTES = {"cuda": 2**30, "cpu": 2**26}
"""Bytes of each buffer of the copy: far more than the caches hold."""

PRODUCT_SIZE = {"cuda": 8192, "cpu": 1024}
"""Rows and columns of the matrices whose product is timed."""

CALLS = 5


class Limits(NamedTuple):
    """The rates of a device: bytes read and written by a copy, operations of products in float32."""

    bytes_per_second: float
    operations_per_second: float


def name_of(device: str) -> str:
    """Return the name of a card, its memory and the version of CUDA; of a CPU that it stands in for one."""
    if device == "cpu":
        return "the CPU in place of a card"
    free, total = torch.cuda.mem_get_info()
    return f"{torch.cuda.get_device_name()}, {total / 1e9:.0f} GB, {free / 1e9:.0f} GB free, CUDA {torch.version.cuda}"


def synchronize(device: str) -> None:
    """Wait until the device has done all that was asked of it."""
    if device == "cuda":
        torch.cuda.synchronize()


def limits_of(device: str) -> Limits:
    """Measure the device. Products are of float32 as the models compute them, without TF32."""
    source = torch.zeros(COPIED_BYTES[device], dtype=torch.int8, device=device)
    target = torch.empty_like(source)
    copying = fastest(lambda: target.copy_(source), device)
    size = PRODUCT_SIZE[device]
    left, right = torch.randn(2, size, size, device=device)
    product = torch.empty_like(left)
    multiplying = fastest(lambda: torch.mm(left, right, out=product), device)
    return Limits(2 * source.nbytes / copying, 2 * size**3 / multiplying)


def fastest(call: Callable[[], object], device: str) -> float:
    """Return the seconds of the fastest of some calls, each waited for; one before them is not counted."""
    times = []
    for _ in range(CALLS + 1):
        synchronize(device)
        began = time.perf_counter()
        call()
        synchronize(device)
        times.append(time.perf_counter() - began)
    return min(times[1:])
