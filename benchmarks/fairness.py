"""How long a client can delay another: the worst requests, each beside a session that steps all the while.

    attacker, in a process of its own  |---- a request, until its answer is read ----|
    neighbour, of another model        step step step ............... step step step
                                                      the longest wait

Nothing is printed before the neighbour's outputs are compared with those of /infer for the same inputs.
"""

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import msgpack
import numpy as np
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from benchmarks.machine import load_average, machine, versions
from benchmarks.server import PROTOCOL, frame, random_inputs, running_server
from benchmarks.table import Table, print_table
from benchmarks.timing import Array, check_close
from benchmarks.worst_requests import LONGEST, REQUESTS, Attacker, attacker

QUIET_SECONDS = 0.3
"""Seconds of the neighbour's steps before a request is sent, and after its answer."""

PAUSE_SECONDS = 0.001
"""Seconds between two steps of the neighbour."""

TOLERANCE = 1e-5


@dataclass(frozen=True)
class FairnessPlan:
    """A measurement: requests to one model, beside a session of another."""

    address: str
    model: str
    neighbour: str
    requests: Sequence[str]
    rounds: int


@dataclass
class Neighbour:
    """A session that steps all the while: its WebSocket, inputs, outputs, and the seconds of each step."""

    socket: ClientConnection
    width: int
    inputs: list[Array] = field(default_factory=list)
    outputs: list[Array] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    def step_until(self, done: Callable[[], bool]) -> list[float]:
        """Step until a condition holds, and return the waits."""
        first = len(self.waits)
        while not done():
            self._step()
            time.sleep(PAUSE_SECONDS)
        return self.waits[first:]

    def _step(self) -> None:
        inputs = random_inputs(1, self.width, len(self.inputs))
        message, began = frame(inputs), time.perf_counter()
        self.socket.send(message)
        answer = self.socket.recv(decode=False)
        self.waits.append(time.perf_counter() - began)
        self.inputs.append(inputs)
        self.outputs.append(np.frombuffer(msgpack.unpackb(answer)["outputs"]["data"], "<f4"))


def run(
    checkpoints: Path,
    model: str,
    neighbour: str,
    requests: Sequence[str],
    rounds: int,
    data_root: Path | None,
    command: str,
) -> None:
    """Print the table: the answer to each request, and the waits of the neighbour.

    model: the model of the requests; neighbour: the model of the session beside them; data_root: the parent of the
    server's temporary data directory, by default the current directory; command: the command line of this run. Raises
    WrongOutputs if the neighbour got a wrong answer.
    """
    print(f"`{command}` on {machine()}, {load_average()};")
    print(f"{versions('uvicorn', 'orjson', 'pydantic')}; medians of {rounds}.", flush=True)
    root = data_root or Path.cwd()
    with tempfile.TemporaryDirectory(dir=root) as data, running_server(checkpoints, Path(data)) as server:
        print_table("fairness", FAIRNESS, FairnessPlan(server.address, model, neighbour, requests, rounds))


class UnknownRequest(ValueError):
    """An unknown name of a request."""


def chosen(names: Sequence[str] | None) -> Sequence[str]:
    """Return the names of the requests to send, all if none are given. Raises UnknownRequest."""
    for name in names or ():
        if name not in REQUESTS:
            raise UnknownRequest(f"--requests: there is no {name!r}; expected some of: {'; '.join(REQUESTS)}")
    return names or tuple(REQUESTS)


def _rows(plan: FairnessPlan) -> Iterator[tuple[str, str, float, float, float]]:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as sender:
        sender.submit(send, plan.address, plan.model, "all cards").result()
        for name in plan.requests:
            tries = [measure(plan, name, sender) for _ in range(plan.rounds)]
            statuses, *waits = zip(*tries, strict=True)
            usual, before, meanwhile = (1e3 * statistics.median(seconds) for seconds in waits)
            yield name, ", ".join(dict.fromkeys(statuses)), usual, before, meanwhile


def send(address: str, model: str, name: str) -> str:
    """Send one of REQUESTS to a model, and return the status of the answer."""
    return REQUESTS[name](attacker(address, model))


def measure(plan: FairnessPlan, name: str, sender: ProcessPoolExecutor) -> tuple[str, float, float, float]:
    """Return the status of a request, and the neighbour's waits in seconds: median, longest, and longest meanwhile."""
    client = attacker(plan.address, plan.neighbour)
    url = f"ws://{plan.address}/stream?model={plan.neighbour}"
    with connect(url, subprotocols=[Subprotocol(PROTOCOL)], compression=None, ping_interval=None) as socket:
        session = msgpack.unpackb(socket.recv(decode=False))["session"]
        neighbour = Neighbour(socket, client.width)
        before = neighbour.step_until(_after(QUIET_SECONDS))
        answer: Future[str] = sender.submit(send, plan.address, plan.model, name)
        meanwhile = neighbour.step_until(answer.done) + neighbour.step_until(_after(QUIET_SECONDS))
    check(client, neighbour)
    client.send("DELETE", f"/sessions/{session}")
    return answer.result(), statistics.median(before), max(before), max(meanwhile)


def check(client: Attacker, neighbour: Neighbour) -> None:
    """Compare the neighbour's outputs with those of /infer. Raises WrongOutputs."""
    inputs, outputs = np.concatenate(neighbour.inputs[:LONGEST]), np.stack(neighbour.outputs[:LONGEST])
    expected = client.outputs(inputs.tolist())
    check_close(f"{client.model}: outputs beside other requests", outputs, expected, TOLERANCE)


def _after(seconds: float) -> Callable[[], bool]:
    end = time.perf_counter() + seconds
    return lambda: time.perf_counter() >= end


FAIRNESS: Table[FairnessPlan] = Table(
    "What one client costs another",
    "A session of another model steps all the while, one step at a time. Milliseconds that a step of it takes: the "
    "median and the longest just before the request, and the longest from the request until 0.3 s after its answer.",
    ("request", "answer", "ordinary step", "longest before", "longest meanwhile"),
    _rows,
)
