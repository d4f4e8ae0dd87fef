"""Forks of forks of forks: the cost of another fork, and of a list of forks, by depth.

    session --o
              '--fork --o
                        '--fork --o        each takes a step and is forked where it is: the last one is at a depth
                                  '--...

`python -m benchmarks.forks` prints a table. A cost that grows with the depth follows the line from fork to fork.
"""

import argparse
import http.client
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import load_average, machine
from benchmarks.server import Server, random_inputs, running_server
from benchmarks.sessions import Post, body
from benchmarks.table import Row, Table, print_table

DEPTHS = (1, 10, 100, 400, 1000)
FORKS = 400
"""Forks of the last one that are made at each depth, and then listed."""
STEPPED, LISTS = 100, 10


@dataclass(frozen=True)
class ForksPlan:
    """The settings of a measurement."""

    checkpoints: Path
    model: str
    width: int
    data: Path


def measure(plan: ForksPlan) -> Iterator[Row]:
    """Yield a row for each depth."""
    step = body(inputs=random_inputs(1, plan.width, 0).tolist())
    with running_server(plan.checkpoints, plan.data) as server:
        with closing(Post(server.address)) as post:
            name, depth = post("/sessions", body(model=plan.model))["id"], 1
            post(f"/sessions/{name}/steps", step)
        for wanted in DEPTHS:
            with closing(Post(server.address)) as post:
                while depth < wanted:
                    name, depth = post(f"/sessions/{name}/fork", b"{}")["id"], depth + 1
                    post(f"/sessions/{name}/steps", step)
                forking, forks = timed(server, post, [(f"/sessions/{name}/fork", b"{}")] * FORKS)
                steps = [(f"/sessions/{fork['id']}/steps", step) for fork in forks[:STEPPED]]
                stepping, _ = timed(server, post, steps)
            listing, _ = timed(server, look, [(server, f"/sessions?limit={FORKS}")] * LISTS)
            yield depth, *forking, *stepping, *listing


def timed(
    server: Server, call: Callable[..., Any], requests: Sequence[tuple[Any, ...]]
) -> tuple[tuple[float, float], list[Any]]:
    """Return the server's CPU time and the median time of a request, in milliseconds, and the answers."""
    seconds, answers, before = [], [], server.cpu_seconds
    for request in requests:
        began = time.perf_counter()
        answers.append(call(*request))
        seconds.append(time.perf_counter() - began)
    return (1000 * (server.cpu_seconds - before) / len(requests), 1000 * float(np.median(seconds))), answers


def look(server: Server, path: str) -> None:
    """Get a page. Raises RuntimeError for any other status than 200."""
    with closing(http.client.HTTPConnection(server.address)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        if response.status != 200:
            raise RuntimeError(f"{path}: {response.read()!r}")
        response.read()


COSTS = Table[ForksPlan](
    "Forks of forks",
    f"Milliseconds of the server's CPU for a fork, for its first step, and for a list of the last {FORKS} sessions; "
    "and from the request to the answer, the median.",
    ("depth", "fork: CPU", "median", "its step: CPU", "median", "list: CPU", "median"),
    measure,
)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.forks", description="Measure what a fork costs, and a list of forks, by depth."
    )
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"), help="directory of the models")
    parser.add_argument("--model", default="dnc-copy", help="whose sessions are forked")
    parser.add_argument("--width", type=int, default=10, help="of its inputs")
    options = parser.parse_args()
    print(f"`python -m benchmarks.forks` on {machine()}, {load_average()}.", flush=True)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as directory:
        print_table("forks", COSTS, ForksPlan(options.checkpoints, options.model, options.width, Path(directory)))


if __name__ == "__main__":
    main()
