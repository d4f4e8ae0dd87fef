"""Compare the back ends on the device with the CPU: outputs, snapshots, rows of batches, a served session."""

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from app.backends.base import Backend
from app.backends.torch import TorchBackend
from benchmarks.gpu.plan import BACKENDS, GpuPlan
from benchmarks.kernels.sizes import WIDTH, random_bits
from benchmarks.table import Row, Table
from benchmarks.timing import Array, check_close

ROOT = Path(__file__).parents[2]

ROWS = {"cuda": 64, "cpu": 4}
STEPS = {"cuda": 20, "cpu": 3}
"""Without a card the kernels are interpreted, which takes long."""

TOLERANCE = 1e-3
"""The largest difference of outputs, relative to the largest output: CPU and card add in other orders."""

TESTS = "tests/app/backends", "tests/kernels/test_torch_unroll.py", "tests/training/test_trainer.py"
"""The files that have tests marked cuda."""

TESTS_SECONDS = 100.0


def measure(plan: GpuPlan) -> Iterator[Row]:
    rows, steps = ROWS[plan.device], STEPS[plan.device]
    for size in plan.sizes:
        here = TorchBackend(plan.checkpoint(size), 2 * rows)
        for name, back_end in BACKENDS.items():
            what, there = f"{size}, {name}", back_end(plan.checkpoint(size), 2 * rows, plan.device)
            inputs = random_bits(steps, rows, WIDTH)
            yield f"{what}: outputs of {rows} sessions over {steps} steps", outputs_agree(what, here, there, inputs)
            yield f"{what}: a snapshot from the device to the CPU and back", snapshots_move(what, here, there, inputs)
            yield f"{what}: a row alone, and among {rows}", rows_are_alone(what, there, inputs)
    yield "a session of a server on the device", served(plan)
    yield "tests marked cuda", tested(plan)


def outputs_agree(what: str, here: Backend, there: Backend, sequence: Array) -> str:
    """Compare outputs. sequence: inputs, [T, B, I]. Raises WrongOutputs."""
    ours, theirs = ([backend.open() for _ in range(sequence.shape[1])] for backend in (here, there))
    differences = []
    for inputs in sequence:
        expected, outputs = here.step(ours, inputs)[0], there.step(theirs, inputs)[0]
        check_close(f"{what}: outputs on the device beside those on the CPU", outputs, expected, TOLERANCE)
        differences.append(np.abs(outputs - expected).max())
    for backend, opened in ((here, ours), (there, theirs)):
        for slot in opened:
            backend.close(slot)
    return f"agree, largest difference {max(differences):.1g}"


def snapshots_move(what: str, here: Backend, there: Backend, sequence: Array) -> str:
    """Step a session on the device, go on with its state on the CPU, and again on the device.

    The state is on its way to the CPU while the session takes its next step. Raises WrongOutputs.
    """
    first, other = there.open(), here.open()
    for inputs in sequence[:, :1]:
        there.step([first], inputs)
    copied, inputs = there.copy(first), random_bits(1, WIDTH)
    copied.send()
    expected, _ = there.step([first], inputs)
    here.write(other, copied.read())
    returned = there.open(here.read(other))
    check_close(f"{what}: a step on the CPU after a snapshot", here.step([other], inputs)[0], expected, TOLERANCE)
    check_close(f"{what}: a step after a snapshot there and back", there.step([returned], inputs)[0], expected, 0)
    for backend, slot in ((there, first), (there, returned), (here, other)):
        backend.close(slot)
    return "goes on; back on the device to the same bits"


def rows_are_alone(what: str, backend: Backend, inputs: Array) -> str:
    """Compare the bits of the first row of a batch with those of a batch of it alone.

    Raises WrongOutputs where they differ by the fused kernels.
    """
    alone = _first_row(backend, inputs[:, :1])
    among = _first_row(backend, inputs)
    if backend.kind == "fused":
        check_close(f"{what}: a row alone", alone, among, 0)
    largest = np.abs(alone - among).max()
    return "the same bits" if not largest else f"differ by up to {largest:.1g}"


def _first_row(backend: Backend, inputs: Array) -> Array:
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
    flags = "--backend", "fused" if plan.device == "cuda" else "torch", "--device", plan.device
    with tempfile.TemporaryDirectory() as data, running_server(plan.directory, Path(data), *flags) as server:
        asyncio.run(check(server.address, model, backend))
    return "agrees with the CPU"


def tested(plan: GpuPlan) -> str:
    """Run the tests that are marked cuda, where this is a checkout and pytest is installed."""
    if plan.device != "cuda" or not (ROOT / "tests").is_dir() or find_spec("pytest") is None:
        return "not run: they need a card, a checkout and pytest"
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", "cuda", "-k", "not compiled", *TESTS]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TESTS_SECONDS)
    except subprocess.TimeoutExpired:
        return f"not over after {TESTS_SECONDS:g} s"
    return done.stdout.strip().rpartition("\n")[2] or f"exit status {done.returncode}"


CHECKS = Table[GpuPlan](
    "Checks",
    "The fused kernels and the torch back end on the device, beside torch on the CPU, with random bits. Outputs may "
    f"differ by {TOLERANCE:g} of the largest one.",
    ("what", "outcome"),
    measure,
)
