"""Session-steps a second of a server on the device, in frames of several steps, beside the back end alone."""

import asyncio
import re
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from app.backends.base import Backend
from app.backends.torch import TorchBackend
from benchmarks.gpu.plan import BACKENDS, GpuPlan
from benchmarks.kernels.sizes import WIDTH, random_bits
from benchmarks.load import LoadFailed, LoadRequest, running_load
from benchmarks.open_files import TooManyConnections, allow_connections
from benchmarks.table import Row, Table
from benchmarks.timing import Array, WrongOutputs, seconds_per_call

if TYPE_CHECKING:
    from benchmarks.server import Server

MODELS = "S", "L"

SESSIONS = {"cuda": (256, 1024, 2048), "cpu": (4,)}

STEPS = 16
"""Steps of a frame."""

SECONDS = 1.0
"""The time of a turn of the server."""

BUSY = 0.8
"""The part of the time from which the back end is the limit."""


class Turn(NamedTuple):
    """A turn of a server: session-steps a second; the part of the time that its back end stepped; cores busy."""

    rate: float
    stepping: float
    cores: float


def measure(plan: GpuPlan) -> Iterator[Row]:
    for model in filter(plan.sizes.__contains__, MODELS):
        if plan.is_over:
            yield without_figures(model, "the time was over")
            continue
        try:
            yield from rows(plan, model)
        except WrongOutputs:
            raise
        except (ImportError, MemoryError, OSError, RuntimeError, SystemExit, TooManyConnections) as error:
            yield without_figures(model, f"not run: {error}".splitlines()[0])


def without_figures(model: str, note: str) -> Row:
    return [model, *["-"] * 7, note]


def rows(plan: GpuPlan, model: str) -> Iterator[Row]:
    """Serve a model, check it, and yield a row for each number of sessions. Raises WrongOutputs.

    Raises ImportError where what a server needs is not installed, LoadFailed where the load generator cannot be built
    or a frame gets no answer, and TooManyConnections.
    """
    from benchmarks.serve.setting import Setting
    from benchmarks.server import check, running_server

    most = max(SESSIONS[plan.device])
    kind = "fused" if plan.device == "cuda" else "torch"  # interpreted kernels would take long
    allow_connections(most)
    checkpoint = plan.checkpoint(model)
    with ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        flags = "--device", plan.device, "--backend", kind, *Setting(plan.directory, model, most, data).own_flags
        server = stack.enter_context(running_server(plan.directory, data, *flags))
        asyncio.run(check(server.address, model, TorchBackend(checkpoint, 1)))
        for sessions in SESSIONS[plan.device]:
            backend, inputs = BACKENDS[kind](checkpoint, sessions, plan.device), random_bits(sessions, STEPS, WIDTH)
            yield model, sessions, *figures(plan, server, model, backend, inputs), ""


def figures(plan: GpuPlan, server: "Server", model: str, backend: Backend, inputs: Array) -> Row:
    """Let the server and the back end alone take turns. inputs: [sessions, STEPS, WIDTH]."""
    slots = [backend.open() for _ in inputs]
    run_alone(backend, slots, inputs)
    alone, turns = [], []
    with loaded(server, model, inputs) as turn:
        turn()
        for _ in range(plan.rounds):
            turns.append(turn())
            alone.append(seconds_per_call(lambda: run_alone(backend, slots, inputs), plan.seconds))
    direct = len(inputs) * STEPS / statistics.median(alone)
    rate, stepping, cores = (statistics.median(each) for each in zip(*turns, strict=True))
    return direct, rate, rate / direct, 100 * stepping, cores, "back end" if stepping >= BUSY else "CPU"


def run_alone(backend: Backend, slots: Sequence[int], inputs: Array) -> None:
    """Take the steps of a frame of all sessions: in one call where the back end can."""
    several = backend.multi_step()
    if several is None:
        backend.slots.run_by_steps(backend.step, slots, inputs, backend.spec.output_size)
    else:
        several.run(slots, inputs)


@contextmanager
def loaded(server: "Server", model: str, inputs: Array) -> Iterator[Callable[[], Turn]]:
    """Open a stream for each session of a model; yield what loads them all for a turn. Raises LoadFailed."""
    from benchmarks.server import PROTOCOL, frame

    requests = [LoadRequest(f"/stream?model={model}", frame(each)) for each in inputs]
    with running_load("ws-binary", server.port, requests, PROTOCOL) as load:
        opened = load.connect()
        if opened.errors:
            raise LoadFailed(f"{opened.errors} of {len(inputs)} streams did not open")

        def turn() -> Turn:
            before = time.perf_counter(), server.cpu_seconds, stepping_seconds(server, model)
            result = load.turn(SECONDS)
            if result.errors or result.unanswered:
                raise LoadFailed(f"{result.errors} frames were refused, and {result.unanswered} not answered")
            after = time.perf_counter(), server.cpu_seconds, stepping_seconds(server, model)
            wall, processors, stepping = (late - early for late, early in zip(after, before, strict=True))
            return Turn(result.answers * STEPS / wall, stepping / wall, processors / wall)

        yield turn


def stepping_seconds(server: "Server", model: str) -> float:
    """Return the seconds that a server's back end of a model has stepped so far."""
    with urllib.request.urlopen(f"http://{server.address}/metrics") as answer:
        text = answer.read().decode()
    found = re.search(rf'^engram_phase_seconds_total{{model="{model}",phase="run"}} (\S+)', text, re.M)
    assert found, "the server counts the seconds of its phases"
    return float(found[1])


SERVED = Table[GpuPlan](
    "Served",
    f"Session-steps a second over WebSocket, in frames of {STEPS} steps, each session with one frame in flight, beside "
    f"those of the back end alone, which takes the same {STEPS} steps of all sessions in a call. Stepping is the part "
    f"of the time that the server's back end steps; from {100 * BUSY:.0f}% on it is the limit, below it the CPU's side "
    "is: sockets, decoding, the store. Cores are those that the server keeps busy, its wait for the device included; "
    "the load takes one more.",
    (
        *("model", "sessions", "alone steps/s", "served steps/s", "served / alone", "stepping %", "cores", "limit"),
        "note",
    ),
    measure,
)
