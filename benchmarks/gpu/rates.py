"""Steps a second on the device: of the back end, of the model alone, and compiled, beside the floor of the card."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from app.backends.base import Backend
from benchmarks.gpu.card import synchronize
from benchmarks.gpu.plan import BACKENDS, GpuPlan
from benchmarks.kernels.floor import work
from benchmarks.kernels.sizes import ABOUT_SIZES, SIZES, WIDTH, Step, check_steps, random_bits, random_model
from benchmarks.table import Row, Table
from benchmarks.timing import Array, medians
from models.artefact import ServedStep
from models.state import flatten

TOLERANCE = 1e-3


def measure(plan: GpuPlan) -> Iterator[Row]:
    for size in plan.sizes:
        compiled = torch.compile(_served(size, plan.device), dynamic=True) if plan.is_compiled else None
        for batch in plan.batches:
            if plan.is_over:
                yield size, batch, *["-"] * 7, "the time was over"
                continue
            try:
                yield size, batch, *_figures(plan, size, batch, compiled), ""
            except (MemoryError, torch.OutOfMemoryError):
                yield size, batch, *["-"] * 7, "no memory left"


def _figures(plan: GpuPlan, size: str, batch: int, compiled: Callable[..., tuple[Tensor, ...]] | None) -> Row:
    """Check the steps, and time them in turns."""
    steps = {
        name: _by_backend(back_end(plan.checkpoint(size), batch, plan.device), batch)
        for name, back_end in BACKENDS.items()
    }
    steps["model"] = _on_device(_served(size, plan.device), size, batch, plan.device)
    if compiled is not None:
        steps["compiled"] = _on_device(compiled, size, batch, plan.device)
    check_steps(f"{size} at batch {batch}", steps, batch, TOLERANCE)
    inputs = random_bits(batch, WIDTH)
    seconds = medians({name: partial(step, inputs) for name, step in steps.items()}, plan.rounds, plan.seconds)
    limits = plan.limits
    needed = work(random_model(SIZES[size]), batch)
    floor = needed.seconds(limits.operations_per_second, limits.bytes_per_second)
    milliseconds = [1e3 * seconds[name] if name in seconds else "-" for name in ("fused", "torch", "model", "compiled")]
    return [*milliseconds, 1e3 * floor, seconds["fused"] / floor, batch / seconds["fused"]]


def _by_backend(backend: Backend, batch: int) -> Step:
    slots = [backend.open() for _ in range(batch)]
    return lambda inputs: backend.step(slots, inputs)[0]


def _served(size: str, device: str) -> ServedStep:
    return ServedStep(random_model(SIZES[size]).eval().to(device), ())


def _on_device(call: Callable[..., tuple[Tensor, ...]], size: str, batch: int, device: str) -> Step:
    """Return the step of a model whose states stay on the device, waited for."""
    first = random_model(SIZES[size]).to(device).initial_state(batch)
    leaves = [leaf.contiguous() for leaf in flatten(first).values()]

    @torch.no_grad()
    def step(inputs: Array) -> Array:
        nonlocal leaves
        outputs, *leaves = call(torch.from_numpy(inputs).to(device), *leaves)
        synchronize(device)
        return outputs.cpu().numpy()

    return step


RATES = Table[GpuPlan](
    "Steps",
    f"{ABOUT_SIZES} Milliseconds for a step of the batch: by the back ends as a server has them, inputs and outputs "
    "in main memory: the fused kernels, and torch; by the model alone, its states on the device; by torch.compile of "
    "it. The floor is the matrix products of the weights and the bytes of memory, links and weightings, read and "
    "written once each, at the rates above.",
    (
        *("model", "batch", "fused ms", "torch ms", "model ms", "compiled ms", "floor ms", "fused / floor"),
        *("session-steps/s", "note"),
    ),
    measure,
)
