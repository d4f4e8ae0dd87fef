"""The step of a server: beside others and its floor, in place or not, by two threads, many in one call."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from app.backends.fused import FusedBackend
from app.backends.onnx import OnnxBackend
from benchmarks.kernels.floor import copy_within, kernel_product, matrix_product, work
from benchmarks.kernels.plan import KernelsPlan
from benchmarks.kernels.sizes import ABOUT_SIZES, SIZES, WIDTH, Step, check_steps, random_bits, random_model
from benchmarks.kernels.steps import by_backend, by_kernel, by_torch, checkpoint, fused_step
from benchmarks.kernels.threads import gain
from benchmarks.table import Row, Table
from benchmarks.timing import Array, check_close, medians
from kernels.step import FusedStep

BATCHES = (1, 8, 64, 256)

TOLERANCE = 1e-4
"""The tolerance of outputs after some steps by torch, ONNX Runtime and the kernels."""
SAME = 0.0
"""The tolerance of results that must be the same bit for bit."""

STEPS_PER_CALL = 16
ROOM = 2
"""The capacity of an arena as a multiple of the sessions of a step."""


def cases(plan: KernelsPlan, sizes: Sequence[str], batches: Sequence[int]) -> Iterator[tuple[str, int]]:
    """Yield each requested size of a table with each batch."""
    return plan.cases([size for size in sizes if size in plan.sizes], batches)


def microseconds(steps: Mapping[str, Step], batch: int, plan: KernelsPlan) -> dict[str, float]:
    """Time the steps in turns."""
    inputs = random_bits(batch, WIDTH)
    times = medians({name: partial(step, inputs) for name, step in steps.items()}, plan.rounds, plan.seconds)
    return {name: 1e6 * seconds for name, seconds in times.items()}


# The step beside others, and its floor


def measure_step(plan: KernelsPlan) -> Iterator[Row]:
    for size, batch in cases(plan, tuple(SIZES), BATCHES):
        directory = checkpoint(size, plan.directory)
        steps = {
            "torch": by_torch(size, batch),
            "ONNX Runtime": by_backend(OnnxBackend(directory, batch), batch),
            "the fused back end": by_backend(FusedBackend(directory, batch), batch),
            "the kernel": by_kernel(fused_step(size, batch), range(batch)),
        }
        check_steps(f"{size} at batch {batch}", steps, batch, TOLERANCE)
        yield size, batch, *step_figures(size, batch, steps, plan)


def step_figures(size: str, batch: int, steps: Mapping[str, Step], plan: KernelsPlan) -> Row:
    """Time the steps, matrix products and a copy of the same size in turns."""
    needed = work(random_model(SIZES[size]), batch)
    product, own_product, copy = matrix_product(), kernel_product(), copy_within(needed.working_set)
    inputs = random_bits(batch, WIDTH)
    calls = {name: partial(step, inputs) for name, step in steps.items()}
    yardsticks = {"product": product.call, "own product": own_product.call, "copy": copy.call}
    times = medians(calls | yardsticks, plan.rounds, plan.seconds)
    torch, onnx, backend, kernel = (times[name] for name in steps)
    rates = product.amount / times["product"], own_product.amount / times["own product"]
    copied = copy.amount / times["copy"]
    floor, by_torch = needed.seconds(max(rates), copied), needed.seconds(rates[0], copied)
    shown = [1e6 * seconds for seconds in (torch, onnx, backend, kernel)]
    ratios = [torch / backend, onnx / backend]
    rates_shown = [rate / 1e9 for rate in (*rates, copied)]
    return [*shown, *ratios, *rates_shown, 1e6 * floor, kernel / floor, kernel / by_torch]


STEP = Table(
    "A step",
    f"{ABOUT_SIZES} Microseconds for a step of the batch: torch runs the model itself; ONNX Runtime and fused are "
    "back ends, as the server has them; kernel is the fused step without a back end around it. The floor is the matrix "
    "products of the weights at the GF/s of large products, by torch or by the kernels, whichever is faster, and "
    "the bytes of memory, links and weightings, read and written once each, at the GB/s of a copy within as many; "
    "the last column takes torch's products.",
    (
        *("model", "batch", "torch", "ONNX Runtime", "fused", "kernel", "torch / fused", "ONNX Runtime / fused"),
        *("torch GF/s", "kernel GF/s", "GB/s", "floor", "kernel / floor", "by torch's GF/s"),
    ),
    measure_step,
)


# In place, or gathered and scattered


def measure_arena(plan: KernelsPlan) -> Iterator[Row]:
    for size, batch in cases(plan, ("S", "M", "L"), (64, 256)):
        slots = np.random.default_rng(0).choice(ROOM * batch, batch, replace=False)
        fused = fused_step(size, ROOM * batch)
        steps = {
            "in place": by_kernel(fused, slots.tolist()),
            "copies": by_copies(fused_step(size, ROOM * batch), fused_step(size, batch), slots),
            "buffers": by_buffers(fused_step(size, ROOM * batch), fused_step(size, batch), slots),
        }
        check_steps(f"{size} at batch {batch}", steps, batch, SAME)
        times = microseconds({**steps, "in order": by_kernel(fused, range(batch))}, batch, plan)
        in_place, in_order, copies, buffers = (times[name] for name in ("in place", "in order", "copies", "buffers"))
        yield (
            size,
            batch,
            in_order,
            in_place,
            copies,
            buffers,
            in_place / in_order,
            copies / in_place,
            buffers / in_place,
        )


def by_copies(arena: FusedStep, buffers: FusedStep, slots: Array) -> Step:
    """Return a step on states that are indexed out of an arena, which allocates, and put back."""

    def step(inputs: Array) -> Array:
        for name, leaf in leaves(arena).items():
            leaves(buffers)[name][:] = leaf[slots]
        outputs = buffers.step(range(len(slots)), inputs)[0]
        for name, leaf in leaves(arena).items():
            leaf[slots] = leaves(buffers)[name]
        return outputs

    return step


def by_buffers(arena: FusedStep, buffers: FusedStep, slots: Array) -> Step:
    """Return a step on states that are gathered from an arena into existing buffers, and put back."""

    def step(inputs: Array) -> Array:
        for name, leaf in leaves(arena).items():
            np.take(leaf, slots, axis=0, out=leaves(buffers)[name], mode="clip")
        outputs = buffers.step(range(len(slots)), inputs)[0]
        for name, leaf in leaves(arena).items():
            leaf[slots] = leaves(buffers)[name]
        return outputs

    return step


def leaves(fused: FusedStep) -> dict[str, Array]:
    """Return the arrays of an arena, to copy the states of many slots at once, as no server does."""
    return fused._arena.leaves


ARENA = Table(
    "In place by slot, or gathered and scattered",
    f"Microseconds for a step of a batch of states in an arena of {ROOM} times as many: in place where they stand in "
    "order; in place in random slots; and out of random slots, stepped, and put back: by NumPy's indexing, which "
    "allocates, or taken into buffers that are there already.",
    (
        *("model", "batch", "in order", "random slots", "gather by index", "gather into buffers"),
        *("random / in order", "by index / in place", "into buffers / in place"),
    ),
    measure_arena,
)


# Two threads, and many steps in a call


def measure_threads(plan: KernelsPlan) -> Iterator[Row]:
    for size, batch in cases(plan, ("S", "M", "L"), (64, 256)):
        one, two = (by_kernel(fused_step(size, batch, threads), range(batch)) for threads in (1, 2))
        check_steps(f"{size} at batch {batch}", {"one thread": one, "two threads": two}, batch, SAME)
        inputs = random_bits(batch, WIDTH)
        times = gain(partial(one, inputs), partial(two, inputs), plan.rounds, plan.seconds)
        yield size, batch, 1e6 * times.one, 1e6 * times.two, times.one / times.two, times.possible


THREADS = Table(
    "Two threads",
    "Microseconds for a step of the batch by the kernel, by one thread and by two that share the sessions. The last "
    "column is the same ratio of matrix products that have nothing in common: how much of two cores was to be had.",
    ("model", "batch", "one thread", "two threads", "one / two", "products: one / two"),
    measure_threads,
)


def measure_calls(plan: KernelsPlan) -> Iterator[Row]:
    for size, batch in cases(plan, ("S", "NTM"), (1, 8)):
        fused, slots = fused_step(size, batch), range(batch)
        inputs = random_bits(STEPS_PER_CALL, batch, WIDTH)
        calls = {"k calls": partial(step_by_step, fused, slots, inputs), "one call": partial(fused.run, slots, inputs)}
        what = f"{size} at batch {batch}: outputs of {STEPS_PER_CALL} steps in a call"
        check_close(what, fused_step(size, batch).run(slots, inputs), calls["k calls"](), SAME)
        times = medians(calls, plan.rounds, plan.seconds)
        many, one = (1e6 * seconds / STEPS_PER_CALL for seconds in times.values())
        yield size, batch, many, one, many / one


def step_by_step(fused: FusedStep, slots: Sequence[int], inputs: Array) -> Array:
    return np.stack([fused.step(slots, vectors)[0] for vectors in inputs])


CALLS = Table(
    f"{STEPS_PER_CALL} steps in a call",
    f"Microseconds for one step of the batch by the kernel: {STEPS_PER_CALL} calls of one step, one call of all.",
    ("model", "batch", f"{STEPS_PER_CALL} calls", "one call", f"{STEPS_PER_CALL} calls / one"),
    measure_calls,
)
