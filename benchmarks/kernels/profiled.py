"""The program that `engram bench kernels --profile` runs under perf: one case, for some seconds.

python -m benchmarks.kernels.profiled CASE LIBRARY SECONDS
"""

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks.kernels.sizes import SIZES, WIDTH, random_bits, random_model
from benchmarks.kernels.steps import by_kernel, fused_step
from benchmarks.kernels.training import MODELS, by_kernels, episodes, update
from kernels.library import Library


def main() -> None:
    case, library, seconds = sys.argv[1:]
    torch.set_num_threads(1)
    call = prepared(case, Library(Path(library)))
    end = time.perf_counter() + float(seconds)
    while time.perf_counter() < end:
        call()


def prepared(case: str, kernels: Library) -> Callable[[], object]:
    """Return a call of a step, "M, batch 64", or of a training update, "training NTM, batch 16"."""
    name, batch = case.split(", batch ")
    if name in SIZES:
        step = by_kernel(fused_step(name, int(batch), kernels=kernels), range(int(batch)))
        return partial(step, random_bits(int(batch), WIDTH))
    model = random_model(MODELS[name.removeprefix("training ")])
    return partial(update, model, by_kernels(model, 1, kernels), *episodes(int(batch)))


if __name__ == "__main__":
    main()
