"""Compare a back end on the device with the CPU: outputs, snapshots, rows of batches, a served session."""

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from app.backends.torch import TorchBackend
from benchmarks.gpu.plan import GpuPlan
from benchmarks.kernels.sizes import WIDTH, random_bits
from benchmarks.table import Row, Table
from benchmarks.timing import Array, check_close

ROOT = Path(__file__).parents[2]

ROWS = 64
STEPS = 20
TOLERANCE = 1e-3
"""The largest difference of outputs, relative to the largest output: CPU and card add in other orders."""

TESTS_SECONDS = 100.0


def measure(plan: GpuPlan) -> Iterator[Row]:
    for size in plan.sizes:
        here, there = (TorchBackend(plan.checkpoint(size), 2 * ROWS, device) for device in ("cpu", plan.device))
        yield f"{size}: outputs of {ROWS} sessions over {STEPS} steps", outputs_agree(size, here, there)
        yield f"{size}: a snapshot from the device to the CPU and back", snapshots_move(size, here, there)
        yield f"{size}: a row alone, and among {ROWS}", rows_are_alone(there)
    yield "a session of a server on the device", served(plan)
    yield "tests marked cuda", tested(plan)


def outputs_agree(size: str, here: TorchBackend, there: TorchBackend) -> str:
    """Compare outputs. Raises WrongOutputs."""
    slots = {backend: [backend.open() for _ in range(ROWS)] for backend in (here, there)}
    differences = []
    for inputs in random_bits(STEPS, ROWS, WIDTH):
        expected, outputs = (backend.step(slots[backend], inputs)[0] for backend in (here, there))
        check_close(f"{size}: outputs on the device beside those on the CPU", outputs, expected, TOLERANCE)
        differences.append(np.abs(outputs - expected).max())
    for backend, opened in slots.items():
        for slot in opened:
            backend.close(slot)
    return f"agree, largest difference {max(differences):.1g}"


def snapshots_move(size: str, here: TorchBackend, there: TorchBackend) -> str:
    """Step a session on the device, go on with its state on the CPU, and again on the device. Raises WrongOutputs."""
    first, other = there.open(), here.open()
    for inputs in random_bits(STEPS, 1, WIDTH):
        there.step([first], inputs)
    here.write(other, there.read(first))
    returned = there.open(here.read(other))
    inputs = random_bits(1, WIDTH)
    expected, _ = there.step([first], inputs)
    check_close(f"{size}: a step on the CPU after a snapshot", here.step([other], inputs)[0], expected, TOLERANCE)
    check_close(f"{size}: a step after a snapshot there and back", there.step([returned], inputs)[0], expected, 0)
    for backend, slot in ((there, first), (there, returned), (here, other)):
        backend.close(slot)
    return "goes on; back on the device to the same bits"


def rows_are_alone(backend: TorchBackend) -> str:
    """Compare the bits of the first row of a batch with those of a batch of it alone."""
    inputs = random_bits(STEPS, ROWS, WIDTH)
    alone = _first_row(backend, inputs[:, :1])
    among = _first_row(backend, inputs)
    largest = np.abs(alone - among).max()
    return "the same bits" if not largest else f"differ by up to {largest:.1g}"


def _first_row(backend: TorchBackend, inputs: Array) -> Array:
    """Return the outputs of the first row. inputs: [T, B, I]."""
    slots = [backend.open() for _ in range(inputs.shape[1])]
    outputs = np.stack([backend.step(slots, each)[0][0] for each in inputs])
    for slot in slots:
        backend.close(slot)
    return outputs


def served(plan: GpuPlan) -> str:
    """Step a session of a server on the device, if all that a server needs is installed. Raises WrongOutputs."""
    try:
        from benchmarks.server import check, running_server
    except ImportError as error:
        return f"not run: {error}"
    model = plan.sizes[0]
    backend = TorchBackend(plan.checkpoint(model), 1)
    flags = "--backend", "torch", "--device", plan.device
    with tempfile.TemporaryDirectory() as data, running_server(plan.directory, Path(data), *flags) as server:
        asyncio.run(check(server.address, model, backend))
    return "agrees with the CPU"


def tested(plan: GpuPlan) -> str:
    """Run the tests that are marked cuda, where this is a checkout and pytest is installed."""
    if plan.device != "cuda" or not (ROOT / "tests").is_dir() or find_spec("pytest") is None:
        return "not run: they need a card, a checkout and pytest"
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", "cuda", "tests/app/backends"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TESTS_SECONDS)
    except subprocess.TimeoutExpired:
        return f"not over after {TESTS_SECONDS:g} s"
    return done.stdout.strip().rpartition("\n")[2] or f"exit status {done.returncode}"


CHECKS = Table[GpuPlan](
    "Checks",
    f"The torch back end on the device, beside the same on the CPU: {STEPS} steps of random bits. Outputs may "
    f"differ by {TOLERANCE:g} of the largest one.",
    ("what", "outcome"),
    measure,
)
