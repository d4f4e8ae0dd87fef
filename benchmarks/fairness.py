"""How long a client can delay another: the worst requests and clients, each beside a session that steps all the while.

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
from benchmarks.open_files import allow_connections
from benchmarks.server import PROTOCOL, Server, frame, random_inputs, running_server
from benchmarks.table import Table, print_table
from benchmarks.timing import Array, check_close
from benchmarks.worst_clients import CLIENTS, MANY, SHORT_TIMES
from benchmarks.worst_holders import HOLDERS
from benchmarks.worst_requests import LONGEST, REQUESTS, Attacker, attacker

QUIET_SECONDS = 0.3
"""Seconds of the neighbour's steps before a request is sent, and after its answer."""

PAUSE_SECONDS = 0.001
"""Seconds between two steps of the neighbour."""

MEMORY_SECONDS = 0.02
"""Seconds between two looks at the server's memory."""

TOLERANCE = 1e-5

WORST = REQUESTS | CLIENTS | HOLDERS


@dataclass(frozen=True)
class FairnessPlan:
    """A measurement: requests to one model, beside a session of another."""

    server: Server
    model: str
    neighbour: str
    requests: Sequence[str]
    rounds: int

    @property
    def address(self) -> str:
        return self.server.address


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
    """Print the tables: the answer to each request and client, and the waits of the neighbour.

    model: the model of the requests; requests: names of WORST; neighbour: the model of the session beside them;
    data_root: the parent of the server's temporary data directory, by default the current directory; command: the
    command line of this run. Raises WrongOutputs if the neighbour got a wrong answer.
    """
    print(f"`{command}` on {machine()}, {load_average()};")
    print(f"{versions('uvicorn', 'orjson', 'pydantic')}; medians of {rounds}.", flush=True)
    allow_connections(2 * MANY)
    for table, worst, flags in (
        (FAIRNESS, REQUESTS, ()),
        (WORST_CLIENTS, CLIENTS, SHORT_TIMES),
        (WORST_HOLDERS, HOLDERS, ()),
    ):
        names = [name for name in requests if name in worst]
        with tempfile.TemporaryDirectory(dir=data_root or Path.cwd()) as data:
            if names:
                with running_server(checkpoints, Path(data), *flags) as server:
                    print_table("fairness", table, FairnessPlan(server, model, neighbour, names, rounds))


class UnknownRequest(ValueError):
    """An unknown name of a request."""


def chosen(names: Sequence[str] | None) -> Sequence[str]:
    """Return the names of the requests to send, all if none are given. Raises UnknownRequest."""
    for name in names or ():
        if name not in WORST:
            raise UnknownRequest(f"--requests: there is no {name!r}; expected some of: {'; '.join(WORST)}")
    return names or tuple(WORST)


def _rows(plan: FairnessPlan) -> Iterator[Sequence[str | float]]:
    """Yield the rows without the memory."""
    return (row[:-2] for row in _rows_with_memory(plan))


def _rows_with_memory(plan: FairnessPlan) -> Iterator[Sequence[str | float]]:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as sender:
        sender.submit(send, plan.address, plan.model, "all cards").result()
        for name in plan.requests:
            tries = [measure(plan, name, sender) for _ in range(plan.rounds)]
            statuses, *figures = zip(*tries, strict=True)
            usual, before, meanwhile, memory, more = map(statistics.median, figures)
            answers = ", ".join(dict.fromkeys(statuses))
            yield name, answers, 1e3 * usual, 1e3 * before, 1e3 * meanwhile, float(memory), float(more)


def send(address: str, model: str, name: str) -> str:
    """Send one of WORST to a model, and return the status of the answer."""
    return WORST[name](attacker(address, model))


def measure(
    plan: FairnessPlan, name: str, sender: ProcessPoolExecutor
) -> tuple[str, float, float, float, float, float]:
    """Return the status of a request, the neighbour's waits in seconds, and the server's resident memory in MB.

    The waits are the median, the longest, and the longest meanwhile; the memory is that before, and what came to it.
    """
    client = attacker(plan.address, plan.neighbour)
    url = f"ws://{plan.address}/stream?model={plan.neighbour}"
    with connect(url, subprotocols=[Subprotocol(PROTOCOL)], compression=None, ping_interval=None) as socket:
        session = msgpack.unpackb(socket.recv(decode=False))["session"]
        neighbour = Neighbour(socket, client.width)
        before = neighbour.step_until(_after(QUIET_SECONDS))
        memory = Memory(plan.server)
        answer: Future[str] = sender.submit(send, plan.address, plan.model, name)
        meanwhile = neighbour.step_until(lambda: memory.noted_and(answer.done()))
        meanwhile += neighbour.step_until(_after(QUIET_SECONDS))
    check(client, neighbour)
    client.send("DELETE", f"/sessions/{session}")
    waits = statistics.median(before), max(before), max(meanwhile)
    return answer.result(), *waits, memory.before, memory.most - memory.before


class Memory:
    """The resident memory of a server, in MB."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._noted = time.perf_counter()
        self.before = self.most = server.memory()

    def noted_and(self, done: bool) -> bool:
        """Note the memory now and then; return `done`."""
        if time.perf_counter() - self._noted > MEMORY_SECONDS:
            self.most = max(self.most, self._server.memory())
            self._noted = time.perf_counter()
        return done


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

WORST_CLIENTS: Table[FairnessPlan] = Table(
    "The cost of clients that break a limit of their connections",
    f"The server has the flags {' '.join(SHORT_TIMES)}. Waits as above; and the server's resident memory in MB, just "
    "before, and how much came to it at most.",
    ("client", "answer", "ordinary step", "longest before", "longest meanwhile", "MB before", "more MB"),
    _rows_with_memory,
)

WORST_HOLDERS: Table[FairnessPlan] = Table(
    "The cost of clients that make a server hold most",
    "Waits and resident memory as above.",
    WORST_CLIENTS.columns,
    _rows_with_memory,
)
