"""A load generator in C, compiled when it is first needed.

    with running_load("ws-text", port, requests) as load:      one connection for each request
        load.connect()                                         opens them, shakes hands, awaits greetings
        load.turn(3.0)                                         closed loop for 3 s, and waits for the last answers
        load.turn(3.0, rate=5000)                              open loop: 5,000 a second, at fixed times

load.c describes the commands.
"""

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, TypeAlias

SOURCE = Path(__file__).with_name("load.c")

OPTIONS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror")

Kind: TypeAlias = Literal["ws-text", "ws-binary", "http"]


class LoadFailed(RuntimeError):
    """The load generator cannot be built or run here; the message gives the reason."""


class LoadRequest(NamedTuple):
    """The request that a connection repeats: frames or POST bodies with this payload."""

    path: str
    payload: bytes


class Opened(NamedTuple):
    """The numbers of open connections and of those that failed to open. seconds: until the last one was open."""

    open: int
    errors: int
    seconds: float


class LoadResult(NamedTuple):
    """The figures of a turn of load.

    answers: all, also those after the turn's seconds; errors: refusals, and broken connections; unanswered: requests
    without an answer half a minute after the turn. seconds: until the last answer. rate: answers per second.
    slowest_of_mean: the answers of the slowest connection relative to the mean. cpu_seconds: of the load generator.
    """

    answers: int
    errors: int
    unanswered: int
    bytes: int
    seconds: float
    rate: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    slowest_of_mean: float
    cpu_seconds: float


class Counts(NamedTuple):
    """The numbers of requests of each connection that were sent, and that were answered."""

    sent: list[int]
    answered: list[int]


def program() -> Path:
    """Return the load generator, compiled once for each version of its source into the user's cache.

    Raises LoadFailed.
    """
    if sys.platform != "linux":
        raise LoadFailed(f"the load generator needs Linux's epoll, and this is {sys.platform}: run it on Linux")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "engram"
    built = cache / f"load-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]}"
    return built if built.is_file() else _build(built)


def _build(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}")
    command = [*_compiler(), *OPTIONS, "-o", str(unfinished), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise LoadFailed(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
    return unfinished.replace(path)


def _compiler() -> list[str]:
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc"]
    found = shutil.which("cc")
    if found is None:
        raise LoadFailed("no C compiler for the load generator was found: pip install ziglang")
    return [found]


@dataclass(frozen=True)
class LoadGenerator:
    """A running load generator. One turn at a time; between turns its connections stay open."""

    process: "subprocess.Popen[str]"

    def connect(self, at_once: int = 64) -> Opened:
        """Open the connections, `at_once` at a time: WebSockets unless they are open, HTTP's anew.

        Raises LoadFailed.
        """
        return Opened(**self._command(f"connect {at_once}"))

    def turn(self, seconds: float, rate: float = 0) -> LoadResult:
        """Send requests for `seconds`. rate: requests per second; 0: as many as are answered. Raises LoadFailed."""
        return LoadResult(**self._command(f"turn {seconds} {rate}"))

    def counts(self) -> Counts:
        return Counts(**self._command("counts"))

    def _command(self, line: str) -> dict[str, Any]:
        commands, answers = _pipe(self.process.stdin), _pipe(self.process.stdout)
        try:
            commands.write(f"{line}\n")
            commands.flush()
        except BrokenPipeError:
            answer = ""
        else:
            answer = answers.readline()
        if not answer:
            raise LoadFailed(f"the load generator ended at {line!r}: {_pipe(self.process.stderr).read().strip()}")
        reply: dict[str, Any] = json.loads(answer)
        return reply


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None, "all three are pipes"
    return stream


@contextmanager
def running_load(
    kind: Kind, port: int, requests: Sequence[LoadRequest], subprotocol: str = ""
) -> Iterator[LoadGenerator]:
    """Run a load generator with a connection to 127.0.0.1 for each request. Raises LoadFailed."""
    with tempfile.NamedTemporaryFile() as file:
        for path, payload in requests:
            file.write(f"{path} {len(payload)}\n".encode() + payload + b"\n")
        file.flush()
        command = [str(program()), kind, str(port), str(len(requests)), file.name, *filter(None, [subprotocol])]
        pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        with subprocess.Popen(command, text=True, **pipes) as process:
            try:
                yield LoadGenerator(process)
            finally:
                process.kill()
