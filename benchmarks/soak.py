"""Load a server for half an hour with honest and rude clients, and see whether it grows.

python -m benchmarks.soak

    honest clients   open, step, rewind, fork, record, stream, delete ...     every output compared with /infer
    rude clients     half requests, garbage, resets, answers not read ...
    samples            |  warm-up  |  .  .  .  .  .  .  .  .  .  .  .  |
                                     a line through these: how much it rises

Memory, descriptors, threads, the log and the data directory are sampled. Their line may rise by what TOLERANCES says,
from the end of the warm-up, which is a third, to the end.
"""

import argparse
import json
import random
import re
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from socket import SHUT_RDWR
from typing import Any, NamedTuple

import httpx
import numpy as np
from websockets.sync.client import connect

from benchmarks.chaos import Server, only
from benchmarks.hostile.beside import Neighbour, Violation, Vitals, check_log
from benchmarks.hostile.rude import ACTS
from benchmarks.machine import machine, versions
from benchmarks.table import line
from training.progress import progress_bar

KEPT_STEPS = 50
"""The setting keep_steps: few, so that the beginnings of sessions are dropped."""

IDLE_SECONDS = 20
"""The setting idle_timeout, after which sessions of rude clients expire."""

ANSWER_SECONDS = 60
"""Time that an answer may take on a machine with other work."""

LIFE_STEPS = 120
"""Steps of a session of an honest client."""

WARM_UP = 1 / 3
"""The part of the samples that is not judged."""

ENDED_BYTES = 400
"""Bytes of data that an ended session may take: its id is remembered for 30 days."""


@dataclass(frozen=True)
class Sample:
    """The resources of a server at one moment."""

    memory: float
    """Resident memory in MB."""
    descriptors: int
    threads: int
    log: float
    """Bytes of the log, in kB."""
    data: float
    """Bytes of the files of the data directory, in MB, without what ended sessions may take."""


class Tolerance(NamedTuple):
    """How much a line may rise: a part of its mean, and a constant."""

    part: float
    constant: float


TOLERANCES: Mapping[str, Tolerance] = {
    "memory": Tolerance(0.02, 3),
    "descriptors": Tolerance(0, 4),
    "threads": Tolerance(0, 1),
    "log": Tolerance(0, 8),
    "data": Tolerance(0.05, 1),
}

UNITS = {"memory": "MB", "descriptors": "", "threads": "", "log": "kB", "data": "MB"}


class Growth(NamedTuple):
    """One resource after the warm-up: its mean and largest value, and how much its line rises, and may."""

    name: str
    mean: float
    largest: float
    rise: float
    allowed: float

    @property
    def is_flat(self) -> bool:
        return self.rise <= self.allowed


def growths(samples: Sequence[Sample], tolerances: Mapping[str, Tolerance] = TOLERANCES) -> list[Growth]:
    """Return the growth of each resource over the samples, which were taken at equal intervals."""
    judged = np.array([astuple(sample) for sample in samples[int(len(samples) * WARM_UP) :]], float)
    times = np.arange(len(judged))
    found = []
    for name, values in zip(tolerances, judged.T, strict=True):
        slope = float(np.polyfit(times, values, 1)[0])
        mean, (part, constant) = float(values.mean()), tolerances[name]
        found.append(Growth(name, mean, float(values.max()), slope * (len(values) - 1), part * mean + constant))
    return found


class Soak:
    """Clients in threads, from `with` to its end."""

    def __init__(self, address: str, model: str, honest: int, rude: int, pause: float, seed: int = 1) -> None:
        """address: host and port; honest, rude: numbers of clients; pause: seconds between two requests of one."""
        self.counts: Counter[str] = Counter()
        """Numbers of what was done: lives and outputs of honest clients, acts of rude ones by name."""
        self.errors: list[BaseException] = []
        self._address = address
        self._model = model
        self._pause = pause
        self._stop = threading.Event()
        self._lock = threading.Lock()
        works: list[tuple[Callable[[random.Random], None], int]] = [
            (self._live_on, honest),
            (self._live, honest),
            (self._be_rude, rude),
        ]
        self._threads = [
            threading.Thread(target=self._guard, args=(work, random.Random(f"{seed} {number} {work.__name__}")))
            for work, count in works
            for number in range(count)
        ]

    def __enter__(self) -> "Soak":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def check(self) -> None:
        """Raise the first error of a client."""
        if self.errors:
            raise self.errors[0]

    def count(self, name: str, number: int = 1) -> None:
        with self._lock:
            self.counts[name] += number

    def _guard(self, work: Callable[[random.Random], None], chance: random.Random) -> None:
        try:
            work(chance)
        except BaseException as error:  # `check` raises it
            self.errors.append(error)

    def _live_on(self, chance: random.Random) -> None:
        """Step two sessions for as long as the soak lasts, or thousands of steps and resets."""
        with Neighbour(self._address, self._model, chance.randrange(2**32)) as neighbour:
            while not self._stop.wait(self._pause):
                neighbour.step()
                self.count("outputs compared", 2)

    def _live(self, chance: random.Random) -> None:
        """Live one life after the other."""
        with Neighbour(self._address, self._model, chance.randrange(2**32)) as neighbour:
            while not self._stop.is_set():
                _Life(self, neighbour, self._model, chance).run()
                self.count("lives")

    def _be_rude(self, chance: random.Random) -> None:
        while not self._stop.wait(4 * self._pause):
            act = chance.choice(ACTS)
            act(self._address, self._model, chance)
            self.count(act.__name__.replace("_", " "))

    def rest(self) -> None:
        """Wait between two requests."""
        self._stop.wait(self._pause)

    def stream_url(self, session: str) -> str:
        return f"ws://{self._address}/sessions/{session}/stream"


class _Life:
    """A session from its beginning to its end, every output of which is compared."""

    def __init__(self, soak: Soak, neighbour: Neighbour, model: str, chance: random.Random) -> None:
        self._soak, self._ask, self._chance = soak, neighbour.ask, chance
        self._inputs = neighbour.inputs[:LIFE_STEPS]
        self._expected = neighbour.expected[:LIFE_STEPS]
        self._session: str = self._ask("POST", "/sessions", {"model": model})["id"]

    def run(self) -> None:
        session, half = self._session, LIFE_STEPS // 2
        self._step(session, 0, half)
        back = half - self._chance.randrange(1, KEPT_STEPS // 2)
        self._ask("POST", f"/sessions/{session}/rewind", {"step": back})
        self._step(session, back, half)
        fork = self._ask("POST", f"/sessions/{session}/fork", {"step": back})["id"]
        self._step(fork, back, half)
        self._record(session)
        self._stream(session, half)
        self._ask("GET", f"/sessions/{session}")
        for ended in (session, fork)[: self._chance.choice([2, 2, 2, 1])]:  # the others expire
            self._ask("DELETE", f"/sessions/{ended}")

    def _step(self, session: str, start: int, stop: int) -> None:
        while start < stop:
            end = min(stop, start + self._chance.randrange(1, 9))
            body = {"inputs": self._inputs[start:end], "if_step": start}
            self._compare(self._ask("POST", f"/sessions/{session}/steps", body)["outputs"], start, end)
            start = end
            self._soak.rest()

    def _record(self, session: str) -> None:
        """Compare the recording of the steps that are kept."""
        info = self._ask("GET", f"/sessions/{session}")
        lines = self._ask("GET", f"/sessions/{session}/recording", text=True).splitlines()
        outputs = [json.loads(entry)["outputs"] for entry in lines]
        self._compare(outputs, info["step"] - len(outputs), info["step"])

    def _stream(self, session: str, start: int) -> None:
        """Step to the end over a WebSocket, which is dropped or closed."""
        with connect(self._soak.stream_url(session), compression=None, ping_interval=None) as socket:
            socket.recv()
            for step in range(start, LIFE_STEPS):
                socket.send(json.dumps({"inputs": [self._inputs[step]], "seq": step}))
                self._compare(json.loads(socket.recv())["outputs"], step, step + 1)
                self._soak.rest()
            if self._chance.random() < 0.5:
                socket.socket.shutdown(SHUT_RDWR)

    def _compare(self, outputs: Sequence[Any], start: int, stop: int) -> None:
        if outputs != self._expected[start:stop]:
            raise Violation(f"steps {start} to {stop} of {self._session}: the outputs are not those of /infer")
        self._soak.count("outputs compared", stop - start)


def measure(server: Server, soak: Soak, seconds: float, interval: float) -> list[Sample]:
    """Return a sample for every `interval` seconds. Raises Violation, or what a client raised."""
    began, samples = time.monotonic(), []
    numbers = range(1, int(seconds / interval) + 1)
    for number in progress_bar(iterable=numbers, desc="samples", unit="sample", leave=False):
        time.sleep(max(0.0, began + number * interval - time.monotonic()))
        soak.check()
        samples.append(sample(server))
    return samples


def sample(server: Server) -> Sample:
    """Return the present resources of a server."""
    vitals = Vitals.of(server.process.pid)
    data = sum(path.stat().st_size for path in server.data.iterdir()) - ENDED_BYTES * ended(server)
    return Sample(vitals.memory, vitals.descriptors, vitals.threads, len(server.log) / 1e3, data / 1e6)


def ended(server: Server) -> int:
    """Return the number of sessions that have ended."""
    text = httpx.get(f"{server.url}/metrics", timeout=ANSWER_SECONDS).text
    return sum(int(float(value)) for value in re.findall(r"^engram_sessions_ended_total\{.*\} (\S+)$", text, re.M))


def run(checkpoint: Path, minutes: float, interval: float, honest: int, rude: int, pause: float, seed: int) -> int:
    """Load a server, print the samples' growth, and return 0 if all are flat, else 1. Raises Violation."""
    print(f"{checkpoint.name}, {minutes:g} minutes, {honest} + {honest} honest and {rude} rude clients, seed {seed}")
    print(f"{machine()}; {versions('uvicorn', 'websockets')}; server and clients share the cores", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        limits = ("--keep-steps", str(KEPT_STEPS), "--idle-timeout", str(IDLE_SECONDS))
        with Server(only(checkpoint, Path(directory)), Path(directory, "data"), *limits) as server:
            with Soak(server.url.removeprefix("http://"), checkpoint.name, honest, rude, pause, seed) as soak:
                samples = measure(server, soak, 60 * minutes, interval)
            soak.check()
            check_log(server.log)
            print(f"done: {', '.join(f'{name} {count}' for name, count in sorted(soak.counts.items()))}")
            print(f"{ended(server)} sessions ended")
            stopped = server.stop()
    found = growths(samples)
    print_growths(found, len(samples))
    return 0 if stopped in (0, -signal.SIGTERM) and all(growth.is_flat for growth in found) else 1


def print_growths(found: Sequence[Growth], samples: int) -> None:
    """Print the growth of each resource as a table."""
    print(f"\n{samples} samples, of which the last {1 - WARM_UP:.0%} are judged\n")
    print(line(("resource", "mean", "largest", "rise of the line", "may rise", "flat")))
    print("|---|---|---|---|---|---|")
    for growth in found:
        unit = UNITS[growth.name]
        figures = [f"{value:.4g} {unit}".strip() for value in growth[1:]]
        print(line((growth.name, *figures, "yes" if growth.is_flat else "NO")))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak",
        description="Load a server with honest and rude clients, and see whether its resources stay as they are.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/dnc-copy"), help="the model to serve")
    parser.add_argument("--minutes", type=float, default=30, help="how long; the first third is the warm-up")
    parser.add_argument("--interval", type=float, default=2, help="seconds between two samples")
    parser.add_argument("--honest", type=int, default=3, help="honest clients with long sessions, and with short ones")
    parser.add_argument("--rude", type=int, default=3, help="rude clients")
    parser.add_argument("--pause", type=float, default=0.01, help="seconds between two requests of a client")
    parser.add_argument("--seed", type=int, default=1, help="of what the clients do")
    sys.exit(run(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
