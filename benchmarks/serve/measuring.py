"""Measure paths: check the servers' answers, then load one after the other, round by round.

    ack        |--|          |--|          |--|        all run and hold their connections; one at a time is loaded
    none          |--|          |--|          |--|
    echo             |--|          |--|          |--|
    back end            |-|           |-|           |-|   in this process
                round 1       round 2       round 3

A ratio is that of two turns of one round, so other load on the machine affects both alike.
"""

import operator
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from app.backends.base import Array
from app.backends.fused import FusedBackend
from benchmarks.load import LoadGenerator, running_load
from benchmarks.serve.paths import Asked, ServedPath, UnknownPath
from benchmarks.serve.servers import Running
from benchmarks.serve.setting import Setting
from benchmarks.server import TOLERANCE, random_inputs
from benchmarks.timing import check_close, seconds_per_call
from models.manifest import read_manifest

CHECKED_REQUESTS = 5
WARM_SECONDS = 0.05
BACKEND_SECONDS = 0.1
"""Neither takes longer than a turn."""


class ServedTurn(NamedTuple):
    """The figures of one server in one turn. cpu, load_cpu: microseconds of processor time for each answer.

    percent: of the closed loop's rate; 0 in the closed loop itself. rate: answers per second. slowest_of_mean: answers
    of the slowest connection relative to the mean. errors: refusals and unanswered requests.
    """

    path: str
    connections: int
    server: str
    percent: float
    cpu: float
    load_cpu: float
    rate: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    slowest_of_mean: float
    answers: int
    errors: int


class Compared(NamedTuple):
    """A path at a number of connections: the turns of each server, round by round.

    backend: microseconds of the bare back end for each request, round by round. open_loop: turns of the first server.
    """

    path: ServedPath
    connections: int
    turns: Mapping[str, Sequence[ServedTurn]]
    backend: Sequence[float]
    open_loop: Sequence[ServedTurn]

    def median(self, name: str, figure: str) -> float:
        """Return the median of a server's rounds. figure: a field of ServedTurn."""
        median: float = statistics.median(getattr(turn, figure) for turn in self.turns[name])
        return median

    def ratio(self, figure: str, name: str, beside: str, with_backend: bool = False) -> float | None:
        """Return the median of the rounds' ratios; None if one of the two servers was not measured.

        with_backend: relative to the other server and the bare back end together. None also if the other's figure is
        0: in a short turn, its processor time may be less than the resolution of the system's clock.
        """
        own, other = ([getattr(turn, figure) for turn in self.turns.get(server, ())] for server in (name, beside))
        if with_backend:
            other = [value + backend for value, backend in zip(other, self.backend, strict=True)]
        if not own or not other or 0 in other:
            return None
        median: float = statistics.median(map(operator.truediv, own, other))
        return median


@dataclass(frozen=True)
class ServePlan:
    """The settings of a measurement. percents: shares of the closed loop's rate for the open loop."""

    setting: Setting
    servers: Mapping[str, Running]
    paths: Sequence[ServedPath]
    connections: Sequence[int]
    rounds: int
    seconds: float
    percents: Sequence[float]

    @property
    def input_size(self) -> int:
        return read_manifest(self.setting.checkpoint).input_size

    def names(self, path: ServedPath) -> list[str]:
        """Return the servers that are measured on a path; Engram once if there are no sessions to log."""
        engram = [name for name, running in self.servers.items() if running.is_engram and not running.is_before]
        before = [name for name, running in self.servers.items() if running.is_before]
        known = [name for name in before if path.name not in self.servers[name].unknown]
        return [*(engram if path.sessions else engram[:1]), *known, *filter(self.servers.__contains__, path.beside)]


def check_all(plan: ServePlan) -> Iterator[str]:
    """Check each server on each path, and yield a line for each path that the other checkout of Engram does not have.

    Raises WrongOutputs.
    """
    for path in plan.paths:
        for running in map(plan.servers.__getitem__, plan.names(path)):
            try:
                check(plan.setting, path, running)
            except UnknownPath:
                if not running.is_before:
                    raise
                running.unknown.add(path.name)
                yield f"- {running.name}: left out on {path.name}, a path that it does not have"


def measure(plan: ServePlan) -> Iterator[Compared]:
    """Measure each path at each number of connections, and yield the results. Raises WrongOutputs."""
    for path in plan.paths:
        for connections in path.counts(plan.connections):
            yield take_turns(plan, path, connections)
    for running in plan.servers.values():
        if running.is_engram:
            running.check_steps()


def check(setting: Setting, path: ServedPath, running: Running) -> None:
    """Compare the answers of new sessions over a path with the expected ones. Raises WrongOutputs."""
    if running.candidate.answers == "request":
        return
    path, backend = running.candidate.asked(path), FusedBackend(setting.checkpoint, max(1, path.sessions))
    sessions, width = running.open(path.sessions), backend.spec.input_size
    questions = [_asked(path, setting.model, sessions, width, seed) for seed in range(CHECKED_REQUESTS)]
    slots = [backend.open() for _ in sessions]
    answers = path.ask(running.server, [path.request(question) for question in questions])
    for question, answer in zip(questions, answers, strict=True):
        computes = running.candidate.answers == "outputs"
        outputs = computed(backend, slots, question.inputs) if computes else question.inputs
        what = f"{running.name}: outputs over {path.name}"
        check_close(what, path.decode(answer), outputs[..., : backend.spec.output_size], TOLERANCE)
    for session in sessions:
        running.count(session, path.steps * CHECKED_REQUESTS, path.steps * CHECKED_REQUESTS)


def computed(backend: FusedBackend, slots: Sequence[int], inputs: Array) -> Array:
    """Return the outputs of inputs [B, T, input_size], from the states in slots; without slots, from a fresh one."""
    fresh = [] if slots else [backend.open()]
    steps = [backend.step(slots or fresh, np.ascontiguousarray(step))[0] for step in inputs.swapaxes(0, 1)]
    for slot in fresh:
        backend.close(slot)
    return np.stack(steps, axis=1)


def _asked(path: ServedPath, model: str, sessions: Sequence[str], width: int, seed: int) -> Asked:
    """Return the contents of a request: steps of sessions with bits as inputs."""
    rows = max(1, path.sessions)
    return Asked(model, sessions, random_inputs(rows * path.steps, width, seed).reshape(rows, path.steps, width))


def take_turns(plan: ServePlan, path: ServedPath, connections: int) -> Compared:
    """Load one server of a path after the other, round by round, and step the bare back end."""
    turns: dict[str, list[ServedTurn]] = {name: [] for name in plan.names(path)}
    step_backend, backend = _bare_backend(plan.setting, path, connections), []
    with ExitStack() as stack:
        links = {name: stack.enter_context(_linked(plan, path, connections, name)) for name in turns}
        for _ in range(plan.rounds):
            for name, link in links.items():
                turns[name].append(link.take_turn(plan.seconds))
            stepping = min(BACKEND_SECONDS, plan.seconds)
            backend.append(1e6 * seconds_per_call(step_backend, stepping, time.process_time) / connections)
        first, closed = next(iter(turns.items()))
        rate = statistics.median(turn.rate for turn in closed)
        open_loop = [links[first].take_turn(plan.seconds, percent, rate) for percent in plan.percents]
    return Compared(path, connections, turns, backend, open_loop)


@dataclass(frozen=True)
class Link:
    """A load generator with its connections to a server."""

    path: ServedPath
    connections: int
    running: Running
    load: LoadGenerator

    def take_turn(self, seconds: float, percent: float = 0, rate: float = 0) -> ServedTurn:
        """Load the server for a turn. percent: of a rate in requests per second, in the open loop; 0: closed loop."""
        server, opened = self.running.server, self.load.connect()
        self.load.turn(min(WARM_SECONDS, seconds))  # by then the server has accepted every connection
        before = server.cpu_seconds
        turn = self.load.turn(seconds, percent / 100 * rate)
        micros = 1e6 / max(1, turn.answers)
        return ServedTurn(
            path=self.path.name,
            connections=self.connections,
            server=self.running.name,
            percent=percent,
            cpu=micros * (server.cpu_seconds - before),
            load_cpu=micros * turn.cpu_seconds,
            rate=turn.rate,
            p50_ms=turn.p50_ms,
            p99_ms=turn.p99_ms,
            p999_ms=turn.p999_ms,
            slowest_of_mean=turn.slowest_of_mean,
            answers=turn.answers,
            errors=opened.errors + turn.errors + turn.unanswered,
        )


@contextmanager
def _linked(plan: ServePlan, path: ServedPath, connections: int, name: str) -> Iterator[Link]:
    """Connect a load generator to a server; in the end, count the steps that it requested of each session."""
    running = plan.servers[name]
    path = running.candidate.asked(path)
    ids = running.sessions(connections * path.sessions)
    groups = [ids[number * path.sessions : (number + 1) * path.sessions] for number in range(connections)]
    requests = [path.request(_asked(path, running.model, group, plan.input_size, 0)) for group in groups]
    with running_load(path.kind, running.server.port, requests, path.subprotocol) as load:
        yield Link(path, connections, running, load)
        counts = load.counts()
    for group, answered, sent in zip(groups, counts.answered, counts.sent, strict=True):
        for session in group:
            running.count(session, path.steps * answered, path.steps * sent)


def _bare_backend(setting: Setting, path: ServedPath, connections: int) -> Callable[[], object]:
    """Return a call that takes the steps of one request of each connection."""
    rows = connections * max(1, path.sessions)
    backend = FusedBackend(setting.checkpoint, rows)
    slots, inputs = [backend.open() for _ in range(rows)], random_inputs(rows, backend.spec.input_size, 0)
    return lambda: [backend.step(slots, inputs) for _ in range(path.steps)]
