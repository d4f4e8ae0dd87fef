"""Many more sessions than fit into memory: their memory and disk, and the cost of restoring one.

    opened, then each stepped, over HTTP:

    0                                                    sessions
    |-----------------------------------------|-----------------|
      have left the arena, with a snapshot      are in the arena
    |woken|                                                         then kill -9, and a start
           |woken|                                        |woken|   from their snapshots, and from their inputs

An evicted session takes a step, for which it is restored ("woken"), and another one in memory: the difference is the
cost of restoring it. Its answers must be the outputs of the back end for the same inputs, or nothing is printed.
"""

import http.client
import json
import queue
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.machine import load_average, machine, versions
from benchmarks.server import BACKENDS, TOLERANCE, Server, random_inputs, running_server
from benchmarks.table import Row, Table, print_table
from benchmarks.timing import Array, check_close
from training.progress import progress_bar

CONNECTIONS = 32
STEPS = 32
"""Steps of each session before it is restored, in one request."""
WOKEN = 1000
"""The most sessions of each kind that are restored."""


class TooFew(ValueError):
    """Too few sessions: none has to be restored."""


@dataclass(frozen=True)
class SessionsPlan:
    """The settings of a measurement."""

    checkpoints: Path
    model: str
    sessions: int
    max_resident: int
    data: Path

    @property
    def woken(self) -> int:
        """The number of sessions to restore of each kind: certainly in the arena, or certainly evicted."""
        return min(WOKEN, self.max_resident // 2, (self.sessions - self.max_resident) // 2)


class Expected(NamedTuple):
    """The requests and answers of sessions that all get the same inputs."""

    first: bytes
    """The request for STEPS steps."""
    next: bytes
    """The request for one more step."""
    outputs: Array
    """float32 [STEPS + 2, output_size]."""


class Post:
    """Posts over one connection that is kept open."""

    def __init__(self, address: str) -> None:
        self._connection = http.client.HTTPConnection(address)

    def __call__(self, path: str, body: bytes) -> Any:
        """Return the answer. Raises RuntimeError if it is a refusal."""
        self._connection.request("POST", path, body, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        answer = json.load(response)
        if response.status >= 300:
            raise RuntimeError(f"{path}: {answer['detail']}")
        return answer

    def close(self) -> None:
        self._connection.close()


def run(checkpoints: Path, model: str, sessions: int, max_resident: int, data_root: Path | None, command: str) -> None:
    """Print the tables of one model.

    data_root: the parent of the server's temporary data directory, by default the current directory. command: the
    command line of this run. Raises TooFew, and WrongOutputs if a session gives a wrong answer.
    """
    if sessions <= max_resident + 1:
        raise TooFew(f"--sessions {sessions}: none has to be woken where {max_resident} are in memory; ask for more")
    print(f"`{command}` on {machine()}, {load_average()};")
    print(f"{versions('uvicorn')}; {CONNECTIONS} connections, {STEPS} steps of each session.", flush=True)
    with tempfile.TemporaryDirectory(dir=data_root or Path.cwd()) as directory:
        measured = measure(SessionsPlan(checkpoints, model, sessions, max_resident, Path(directory)))
    print_table("memory", MEMORY, measured.memory)
    print_table("rates", RATES, measured.rates)
    print_table("steps", LATENCY, measured.latency)


class SessionsReport(NamedTuple):
    """The rows of the tables."""

    memory: list[Row]
    rates: list[Row]
    latency: list[Row]


def measure(plan: SessionsPlan) -> SessionsReport:
    """Open, step, restore, kill, start and restore again."""
    asked = expected(plan)
    measured = SessionsReport([], [], [])
    with started(plan) as (server, seconds):
        measured.memory.append(("ready", seconds, *memory(server, plan)))
        names = [answer["id"] for answer in post_all(server, "opening", opening(plan), measured.rates)]
        paths = [f"/sessions/{name}/steps" for name in names]
        post_all(server, "stepping", [(path, asked.first) for path in paths], measured.rates)
        measured.memory.append(("all opened and stepped", "", *memory(server, plan)))
        measured.latency.extend(latencies(server, paths[: plan.woken], asked, "woken from its snapshot"))
        measured.memory.append((f"{plan.woken} woken", "", *memory(server, plan)))
        server.process.kill()
    with started(plan) as (server, seconds):
        measured.memory.append(("ready after kill -9", seconds, *memory(server, plan)))
        chosen = paths[plan.woken : 2 * plan.woken]
        measured.latency.extend(latencies(server, chosen, asked, "woken from its snapshot, after kill -9"))
        measured.latency.extend(
            latencies(server, paths[-plan.woken :], asked, f"woken by its {STEPS} steps, after kill -9")
        )
        measured.memory.append((f"{2 * plan.woken} woken", "", *memory(server, plan)))
    return measured


def expected(plan: SessionsPlan) -> Expected:
    """Compute the requests and answers of a session of the plan's model."""
    backend = BACKENDS["fused"](plan.checkpoints / plan.model, 1)
    slot = backend.open()
    inputs = random_inputs(STEPS + 1, backend.spec.input_size, 0)
    outputs = [backend.step([slot], row[np.newaxis])[0][0] for row in (*inputs, inputs[-1])]
    return Expected(body(inputs=inputs[:STEPS].tolist()), body(inputs=inputs[STEPS:].tolist()), np.stack(outputs))


@contextmanager
def started(plan: SessionsPlan) -> Iterator[tuple[Server, float]]:
    """Start a server, and yield it when it is ready, with the seconds until then."""
    began = time.perf_counter()
    flags = ("--max-resident", str(plan.max_resident), "--max-sessions", str(plan.sessions))
    with running_server(plan.checkpoints, plan.data, *flags) as server:
        with closing(http.client.HTTPConnection(server.address)) as connection:
            connection.request("GET", "/readyz")
            response = connection.getresponse()
            assert response.status == 200, response.read()
        yield server, time.perf_counter() - began


def memory(server: Server, plan: SessionsPlan) -> tuple[float, float, float]:
    """Return resident megabytes, their peak, and the megabytes of the data directory."""
    files = sum(path.stat().st_size for path in plan.data.iterdir())
    return server.memory(), server.memory("VmHWM"), files / 1e6


def opening(plan: SessionsPlan) -> list[tuple[str, bytes]]:
    return [("/sessions", body(model=plan.model))] * plan.sessions


def body(**document: Any) -> bytes:
    return json.dumps(document).encode()


def post_all(server: Server, what: str, requests: Sequence[tuple[str, bytes]], rates: list[Row]) -> list[Any]:
    """Post requests over several connections, add a row with their rate, and return the answers, in order."""
    idle: queue.SimpleQueue[Post] = queue.SimpleQueue()
    for _ in range(CONNECTIONS):
        idle.put(Post(server.address))

    def post(request: tuple[str, bytes]) -> Any:
        connection = idle.get()
        try:
            return connection(*request)
        finally:
            idle.put(connection)

    began, cpu = time.perf_counter(), server.cpu_seconds
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        posted = pool.map(post, requests)
        answers = list(progress_bar(iterable=posted, desc=what, total=len(requests), leave=False, unit="session"))
    count = len(requests)
    rates.append((what, count, count / (time.perf_counter() - began), 1000 * (server.cpu_seconds - cpu) / count))
    for _ in range(CONNECTIONS):
        idle.get().close()
    return answers


def latencies(server: Server, paths: Sequence[str], asked: Expected, what: str) -> Iterator[Row]:
    """Yield the latency of a step that restores its session, and of the next one."""
    waking, awake = [], []
    with closing(Post(server.address)) as post:
        for path in progress_bar(iterable=paths, desc=what, leave=False, unit="session"):
            waking.append(step(post, path, asked, STEPS))
            awake.append(step(post, path, asked, STEPS + 1))
    yield what, len(waking), *spread(waking)
    yield "the same in memory", len(awake), *spread(awake)


def step(post: Callable[[str, bytes], Any], path: str, asked: Expected, reached: int) -> float:
    """Take one step of a session that is at `reached`, and return its seconds. Raises WrongOutputs."""
    began = time.perf_counter()
    answer = post(path, asked.next)
    seconds = time.perf_counter() - began
    check_close(f"{path}: step", np.array(answer["step"]), np.array(reached + 1), 0.0)
    check_close(f"{path}: outputs", np.array(answer["outputs"][0]), asked.outputs[reached], TOLERANCE)
    return seconds


def spread(times: Sequence[float]) -> list[float]:
    """Return the median, 95th and 99th percentile and the longest of seconds, in milliseconds."""
    return [1000 * float(value) for value in np.percentile(times, [50, 95, 99, 100])]


MEMORY = Table[Sequence[Row]](
    "Memory of the server",
    "In megabytes of 10^6 bytes: resident now and at most so far, and the files of the data directory. The seconds are "
    "those from the start of the process until it is ready.",
    ("when", "seconds", "resident", "at most", "data directory"),
    iter,
)

RATES = Table[Sequence[Row]](
    "All sessions",
    "Each is opened by one request and stepped by one. CPU: milliseconds of the server for each.",
    ("what", "sessions", "sessions/s", "CPU"),
    iter,
)

LATENCY = Table[Sequence[Row]](
    "One step",
    "Milliseconds from the request for one step to its answer, one session at a time, over one connection.",
    ("session", "steps", "median", "95th percentile", "99th", "longest"),
    iter,
)
