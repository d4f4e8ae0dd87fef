"""The cost of a served step of imported graphs: `engram bench graphs`.

ack        |--|       |--|       |--|       one server after the other is loaded over WebSocket, a frame a step
back end      |-|        |-|        |-|     as many rows in one batch, in this process
           round 1    round 2    round 3
"""

import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from app.backends.base import Array
from app.backends.onnx import OnnxBackend
from benchmarks.load import running_load
from benchmarks.open_files import allow_connections
from benchmarks.serve.measuring import BACKEND_SECONDS, CHECKED_REQUESTS, Link
from benchmarks.serve.paths import PATHS, Asked
from benchmarks.serve.servers import Running, command_lines, running_servers
from benchmarks.serve.setting import Setting, heading
from benchmarks.table import Row, Table, print_table
from benchmarks.timing import check_close, seconds_per_call
from models.manifest import GRAPH_KIND, MANIFEST_FILE, Manifest, read_manifest

PATH = replace(PATHS["ws-msgpack"], about="WebSocket, a frame of 1 step, msgpack", steps=1, beside=())


@dataclass(frozen=True)
class GraphsPlan:
    """The settings of a measurement. servers: by durability, each with all models."""

    checkpoints: Path
    models: Sequence[str]
    servers: Mapping[str, Running]
    connections: Sequence[int]
    rounds: int
    seconds: float


def run(
    checkpoints: Path,
    models: Sequence[str],
    connections: Sequence[int],
    durabilities: Sequence[str],
    rounds: int,
    seconds: float,
    data_root: Path | None,
    command: str,
) -> None:
    """Print the table of imported graphs, of all in `checkpoints` if no models are named.

    data_root: the parent of the servers' temporary data directories, by default the current directory. Raises
    WrongOutputs if a server gives another answer than the back end, or loses a step, and FileNotFoundError without a
    graph to measure.
    """
    models = models or imported_graphs(checkpoints)
    allow_connections(max(connections))
    with tempfile.TemporaryDirectory(dir=data_root or Path.cwd()) as directory:
        setting = Setting(checkpoints, models[0], max(connections), Path(directory))
        print(*heading(command), sep="\n")
        print(f"Medians of {rounds} rounds of {seconds:g} s; {PATH.about}; servers and load share the cores.")
        print(*command_lines(durabilities, setting), sep="\n", flush=True)
        with running_servers(durabilities, setting) as servers:
            print_table("graphs", GRAPHS, GraphsPlan(checkpoints, models, servers, connections, rounds, seconds))


def imported_graphs(checkpoints: Path) -> list[str]:
    """Return the names of the imported graphs in a directory. Raises FileNotFoundError if it has none."""
    manifests = sorted(checkpoints.glob(f"*/{MANIFEST_FILE}"))
    names = [path.parent.name for path in manifests if read_manifest(path.parent).kind == GRAPH_KIND]
    if not names:
        raise FileNotFoundError(
            f"{checkpoints}: no imported graph is there to measure; engram import --format onnx FILE --out "
            f"{checkpoints / 'NAME'} makes one"
        )
    return names


def draw_inputs(manifest: Manifest, rows: int, seed: int) -> Array:
    """Return random inputs of a graph, float32 [rows, input_size]: within its ranges or its vocabulary, else normal."""
    generator = np.random.default_rng(seed)
    vocabulary = manifest.config.get("embedding", {}).get("vocabulary_size")
    parts: list[Array] = []
    for part in manifest.config["graph"]["inputs"]:
        shape = rows, int(np.prod(part["shape"], dtype=int))
        if vocabulary and manifest.input_size == 1:
            parts.append(generator.integers(0, vocabulary, shape))
        elif part.get("whole"):
            low, high = part["range"] or (0, 1)
            parts.append(generator.integers(int(low), int(high) + 1, shape))
        elif part["range"]:
            low, high = part["range"]
            parts.append(generator.uniform(low, high, shape))
        else:
            parts.append(generator.standard_normal(shape))
    return np.concatenate(parts, 1).astype(np.float32)


def check(checkpoint: Path, running: Running) -> None:
    """Compare the answers of a new session with the outputs of the back end, to the bit. Raises WrongOutputs."""
    manifest, backend = read_manifest(checkpoint), OnnxBackend(checkpoint, 1)
    [session], slot = running.open(1), backend.open()
    steps = [draw_inputs(manifest, 1, seed) for seed in range(CHECKED_REQUESTS)]
    requests = [PATH.request(Asked(running.model, [session], step[np.newaxis])) for step in steps]
    for answer, step in zip(PATH.ask(running.server, requests), steps, strict=True):
        expected, _ = backend.step([slot], step)
        check_close(f"{running.name}: outputs of {running.model}", PATH.decode(answer)[0], expected, 0)
    running.count(session, CHECKED_REQUESTS, CHECKED_REQUESTS)


def measure(plan: GraphsPlan) -> Iterator[Row]:
    for model in plan.models:
        checkpoint = plan.checkpoints / model
        for server in plan.servers.values():
            running = replace(server, model=model, steps={})
            check(checkpoint, running)
            for connections in plan.connections:
                yield measured(plan, checkpoint, running, connections)
            running.check_steps()


def measured(plan: GraphsPlan, checkpoint: Path, running: Running, connections: int) -> Row:
    """Return the row of a model at a number of connections."""
    manifest, backend = read_manifest(checkpoint), OnnxBackend(checkpoint, connections)
    inputs, slots = draw_inputs(manifest, connections, 0), [backend.open() for _ in range(connections)]
    turns, bare = [], []
    with _linked(running, inputs) as link:
        for _ in range(plan.rounds):
            turns.append(link.take_turn(plan.seconds))
            stepping = min(BACKEND_SECONDS, plan.seconds)
            seconds = seconds_per_call(lambda: backend.step(slots, inputs), stepping, time.process_time)
            bare.append(1e6 * seconds / connections)
    ratios = [turn.cpu / alone for turn, alone in zip(turns, bare, strict=True)]
    return (
        running.model,
        manifest.config["graph"]["form"],
        connections,
        running.name,
        statistics.median(turn.rate for turn in turns),
        statistics.median(turn.p50_ms for turn in turns),
        statistics.median(bare),
        statistics.median(turn.cpu for turn in turns),
        statistics.median(ratios),
        sum(turn.errors for turn in turns),
    )


@contextmanager
def _linked(running: Running, inputs: Array) -> Iterator[Link]:
    """Connect a load generator, whose connections repeat a row each; in the end, count the steps of its sessions."""
    sessions = running.sessions(len(inputs))
    requests = [
        PATH.request(Asked(running.model, [session], row.reshape(1, 1, -1)))
        for session, row in zip(sessions, inputs, strict=True)
    ]
    with running_load(PATH.kind, running.server.port, requests, PATH.subprotocol) as load:
        yield Link(PATH, len(inputs), running, load)
        counts = load.counts()
    for session, answered, sent in zip(sessions, counts.answered, counts.sent, strict=True):
        running.count(session, answered, sent)


GRAPHS: Table[GraphsPlan] = Table(
    "Imported graphs",
    "Microseconds of processor time for each step: of the bare back end, in one batch of as many rows as there are "
    "connections, and of the server with all its threads. p50 in milliseconds. The ratio is the median of those of "
    "each round.",
    (
        "model",
        "form",
        "connections",
        "durability",
        "steps/s",
        "p50",
        "back end",
        "server",
        "server / back end",
        "errors",
    ),
    measure,
)
