"""The servers that are measured: Engram and others. Each is a process of its own."""

import http.client
import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.floors.triton import RECIPE, tritonserver
from benchmarks.load import program
from benchmarks.serve.paths import ECHO, TRITON_TARGET, ServedPath, triton_request
from benchmarks.serve.setting import Setting
from benchmarks.server import Server, running, running_server, serve_words
from benchmarks.timing import WrongOutputs
from models.manifest import read_manifest

ROOM = "engram.room"
"""Runs a module of Engram's also where the caller's directory has a package `benchmarks` of its own."""


@dataclass(frozen=True)
class ServerKind:
    """One of SERVERS. command: its command line; None for Engram."""

    about: str
    answers: Literal["outputs", "inputs", "request"]
    """The kind of its answers: the model's outputs, the inputs cut to the outputs' width, or the request unread."""
    command: Callable[[Setting], Sequence[str]] | None = None
    durability: str = ""
    needs: tuple[str, ...] = ()
    """Packages that it needs; without them it is left out."""
    recipe: str = ""
    """The command that installs it, if not by the names of the packages."""
    asked: Callable[[ServedPath], ServedPath] = lambda path: path
    """The form of its requests on a path."""

    def remedy(self, setting: Setting) -> str:
        """Return the command that installs the missing packages, "" if none is missing."""
        missing = [name for name in self.needs if not setting.has(name)]
        return (self.recipe or f"pip install {' '.join(missing)}") if missing else ""


def _floor(name: str) -> Callable[[Setting], Sequence[str]]:
    def command(setting: Setting) -> Sequence[str]:
        width = read_manifest(setting.checkpoint).output_size
        return sys.executable, "-m", ROOM, f"benchmarks.floors.{name}", str(width)

    return command


def _plain(setting: Setting) -> Sequence[str]:
    return sys.executable, "-m", ROOM, "benchmarks.floors.plain", str(setting.checkpoint)


def _triton(setting: Setting) -> Sequence[str]:
    assert setting.triton, "it is left out where there is none"
    words = str(setting.checkpoint), str(setting.triton), str(setting.sessions)
    return sys.executable, "-m", ROOM, "benchmarks.floors.triton", *words


def _peer(name: str) -> Callable[[Setting], Sequence[str]]:
    def command(setting: Setting) -> Sequence[str]:
        path = ["env", f"PYTHONPATH={setting.packages.resolve()}"] if setting.packages else []
        words = f"benchmarks.floors.{name}", str(setting.checkpoint), str(setting.sessions)
        return *path, sys.executable, "-m", ROOM, *words

    return command


def _before(durability: str) -> Callable[[Setting], Sequence[str]]:
    def command(setting: Setting) -> Sequence[str]:
        assert setting.before, "it is left out where there is none"
        data = setting.data / (BEFORE + durability)
        words = serve_words(setting.checkpoints, data, *setting.flags, "--durability", durability)
        return *_python_in(setting.before), "-m", _command_line(setting.before), *words

    return command


def python_of(checkout: Path) -> Path:
    """Return the Python that runs another checkout: its own if it has one, else this."""
    own = checkout.resolve() / ".venv" / "bin" / "python"
    return own if own.is_file() else Path(sys.executable)


def _python_in(checkout: Path) -> list[str]:
    """Return the words that run Python with the modules of another checkout."""
    return ["env", f"PYTHONPATH={checkout.resolve()}", str(python_of(checkout)), "-P"]


def require_engram(checkout: Path) -> None:
    """Raise FileNotFoundError unless this is a checkout of Engram with built kernels."""
    _command_line(checkout)
    kernels = "kernels" if (checkout / "kernels").is_dir() else "models.kernels"  # where they were before
    script = f"from {kernels}.library import library; found = library(); print(found.path if found else '')"
    done = subprocess.run([*_python_in(checkout), "-c", script], capture_output=True, text=True)
    if not done.stdout.startswith(str(checkout.resolve())):
        remedy = f"(cd {shlex.quote(str(checkout))} && {python_of(checkout)} -m {kernels}.build)"
        why = (done.stderr.strip().splitlines() or ["none are there"])[-1]
        raise FileNotFoundError(f"--before: {checkout} has no kernels to run, {why}; build them: {remedy}")


def _command_line(checkout: Path) -> str:
    """Return the module that is the command line of a checkout. Raises FileNotFoundError where there is none."""
    for module, file in (("engram", "engram/main.py"), ("app.cli", "app/cli.py")):
        if (checkout / file).is_file():
            return module
    raise FileNotFoundError(f"--before: {checkout} is no checkout of Engram; git worktree add DIR COMMIT makes one")


def _ceiling(_: Setting) -> Sequence[str]:
    return str(program()), "echo"


TRITON = "triton"

BEFORE = "before-"
"""The name, before a durability, of Engram of another checkout."""

PEERS_RECIPE = "pip install --target DIR -c constraints.txt litserve==0.2.19 'ray[serve]==2.60.0', then --packages DIR"
"""Installs both without torch, which neither requires, and otherwise with Engram's versions."""

SERVERS = {
    "ack": ServerKind("Engram, every step logged before it is answered", answers="outputs", durability="ack"),
    "none": ServerKind("Engram, no step logged", answers="outputs", durability="none"),
    "interval": ServerKind("Engram, steps logged within 0.1 s", answers="outputs", durability="interval"),
    ECHO: ServerKind("uvicorn, the same decoding and encoding, no model", answers="inputs", command=_floor("echo")),
    "picows": ServerKind(
        "picows, the same as echo",
        answers="inputs",
        command=_floor("picows_echo"),
        needs=("picows", "multidict", "python_socks", "uvloop"),
    ),
    "plain": ServerKind("FastAPI, torch, a dictionary of states", answers="outputs", command=_plain, needs=("torch",)),
    TRITON: ServerKind(
        "NVIDIA Triton, its Python back end, torch, batches of sequences by the strategy oldest",
        answers="outputs",
        command=_triton,
        needs=("torch",),
        asked=lambda path: path.for_triton,
    ),
    "litserve": ServerKind(
        "LitServe, one worker, torch, batches of what comes within 1 ms, fast_queue; the session is in the body",
        answers="outputs",
        command=_peer("litserve"),
        needs=("litserve", "torch"),
        recipe=PEERS_RECIPE,
        asked=lambda path: path.for_litserve,
    ),
    "ray": ServerKind(
        "Ray Serve, one replica, torch, serve.batch of all that is there, RAY_SERVE_THROUGHPUT_OPTIMIZED, asked at the "
        "replica (direct ingress)",
        answers="outputs",
        command=_peer("ray_serve"),
        needs=("ray", "torch"),
        recipe=PEERS_RECIPE,
    ),
    "ceiling": ServerKind("an echo in C: the most that the load generator can do", answers="request", command=_ceiling),
    **{
        BEFORE + durability: ServerKind(
            f"Engram of the checkout of --before, --durability {durability}",
            answers="outputs",
            command=_before(durability),
            durability=durability,
        )
        for durability in ("ack", "none", "interval")
    },
}


@dataclass(eq=False)
class Running:
    """A running server. steps: for each session, the least and the most steps that it may have taken."""

    name: str
    candidate: ServerKind
    server: Server
    model: str
    input_size: int
    steps: dict[str, tuple[int, int]] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    """The names of the paths that it does not have."""

    @property
    def is_engram(self) -> bool:
        return bool(self.candidate.durability)

    @property
    def is_before(self) -> bool:
        return self.name.startswith(BEFORE)

    def sessions(self, count: int) -> list[str]:
        """Return `count` sessions, the same at every call."""
        if count > len(self.steps):
            self.open(count - len(self.steps))
        return list(self.steps)[:count]

    def open(self, count: int) -> list[str]:
        """Open sessions. In other servers than Engram, a session begins with its first step."""
        if self.is_engram:
            ids = open_sessions(self.server, self.model, count)
        else:
            ids = [f"s{len(self.steps) + number}" for number in range(count)]
        if self.name == TRITON:
            _start_sequences(self.server, ids, self.input_size)
        self.steps |= dict.fromkeys(ids, (0, 0))
        return ids

    def count(self, session: str, answered: int, sent: int) -> None:
        """Record the steps of a session: those that were answered, and all that were sent."""
        least, most = self.steps[session]
        self.steps[session] = least + answered, most + sent

    def check_steps(self) -> None:
        """Raise WrongOutputs unless the step of every session equals the number of its answers.

        After a broken connection it may also be any step up to the last one that was sent.
        """
        with closing(http.client.HTTPConnection(self.server.address)) as connection:
            for session, (least, most) in self.steps.items():
                connection.request("GET", f"/sessions/{session}")
                step = json.load(connection.getresponse())["step"]
                if not least <= step <= most:
                    answered = f"{least} to {most}" if least < most else str(least)
                    raise WrongOutputs(f"{self.name}: a session that answered {answered} steps is at step {step}")


@contextmanager
def running_servers(names: Sequence[str], setting: Setting) -> Iterator[Mapping[str, Running]]:
    """Run servers, all at the same time, and end them."""
    with ExitStack() as stack:
        model, width = setting.model, read_manifest(setting.checkpoint).input_size
        yield {
            name: Running(name, SERVERS[name], stack.enter_context(_started(name, setting)), model, width)
            for name in names
        }


def _started(name: str, setting: Setting) -> AbstractContextManager[Server]:
    candidate = SERVERS[name]
    if candidate.command:
        return running(candidate.command(setting))
    flags = (*setting.own_flags, "--durability", candidate.durability)
    return running_server(setting.checkpoints, setting.data / name, *flags)


def open_sessions(server: Server, model: str, count: int) -> list[str]:
    """Open sessions over HTTP and return their ids."""
    with closing(http.client.HTTPConnection(server.address)) as connection:
        return [_open(connection, model) for _ in range(count)]


def _open(connection: http.client.HTTPConnection, model: str) -> str:
    connection.request("POST", "/sessions", json.dumps({"model": model}), {"Content-Type": "application/json"})
    answer = json.load(connection.getresponse())
    if "id" not in answer:
        raise WrongOutputs(f"POST /sessions for {model} opened no session: {answer}")
    session: str = answer["id"]
    return session


def _start_sequences(server: Server, ids: Sequence[str], input_size: int) -> None:
    """Open sequences in Triton, which needs a request for it; our model takes no step for that request."""
    with closing(http.client.HTTPConnection(server.address)) as connection:
        for session in ids:
            opening = triton_request(session, np.zeros((1, input_size), np.float32), start=True)
            connection.request("POST", TRITON_TARGET, opening)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200:
                raise WrongOutputs(f"triton: no sequence was opened: {body!r}")


def command_lines(names: Sequence[str], setting: Setting) -> Iterator[str]:
    """Yield a line for each server: its name, its description and its command."""
    for name in names:
        candidate = SERVERS[name]
        if candidate.command is None:
            words = ["engram", "serve", *setting.own_flags, "--durability", candidate.durability]
        else:
            words = list(map(_shown, candidate.command(setting)))
        yield f"- {name}: {candidate.about}; `{shlex.join(words)}`"


def _shown(word: str) -> str:
    """Return a word of a command without the directories of this machine, as in PYTHONPATH=/here/peers."""
    name, equals, value = word.rpartition("=")
    return name + equals + (Path(value).name if Path(value).is_absolute() else value)


def chosen_servers(durabilities: Sequence[str], beside: Sequence[str], setting: Setting) -> tuple[list[str], list[str]]:
    """Return the servers to run, and a line for each that is left out.

    Raises FileNotFoundError if Triton or another checkout is not in its directory.
    """
    names, left_out = list(durabilities), []
    for name in dict.fromkeys(beside):
        remedy = SERVERS[name].remedy(setting)
        if not remedy and name == TRITON and setting.triton is None:
            remedy = f"{RECIPE.format(directory='DIR')}, then --triton DIR"
        if remedy:
            left_out.append(f"- {name}: left out; {remedy}")
        else:
            names.append(name)
    if setting.triton:
        tritonserver(setting.triton)
    if setting.before:
        require_engram(setting.before)
        names.append(BEFORE + durabilities[0])
    return names, left_out
