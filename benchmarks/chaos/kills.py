"""Kills of one server under load."""

import random
import signal
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.chaos.checker import Reference, check_answers, check_count, check_ended, check_sessions
from benchmarks.chaos.load import Load
from benchmarks.chaos.record import KEPT_STEPS
from benchmarks.chaos.server import Server, only
from benchmarks.machine import machine, versions
from training.progress import progress_bar

STARTING = 0.2
STARTING_SECONDS = 0.8
"""The share of the servers that is killed during the start, and within how many seconds."""


def kill_again_and_again(server: Server, load: Load, kills: int, seconds: float, chance: random.Random) -> list[float]:
    """Kill a running server `kills` times and start it again: most live for `seconds` on average, some less.

    It is killed once more when the clients have finished, so that its last answers are read from its files.
    Returns the seconds until the servers were ready, of those that were not killed before. Raises Violation.
    """
    ready = []
    for _ in progress_bar(iterable=range(kills), desc="kills", unit="kill", leave=False):
        server.stop(signal.SIGKILL)
        server.start()
        if chance.random() < STARTING:
            time.sleep(chance.uniform(0, STARTING_SECONDS))
        else:
            ready.append(server.wait_until_ready())
            load.wait_for(1)
            time.sleep(chance.uniform(0, 2 * seconds))
    load.finish()
    server.stop(signal.SIGKILL)
    server.start()
    server.wait_until_ready()
    return ready


def check(server: Server, load: Load, checkpoint: Path) -> int:
    """Wait for the clients, compare all of their answers, and return the number of outputs. Raises Violation."""
    tracks, reference = load.finish(), Reference(checkpoint)
    steps = check_answers(tracks, reference)
    check_count(server.url, len(load.open))
    check_sessions(server.url, load.open, reference)
    check_ended(server.url, load.ended)
    return steps


def run(checkpoint: Path, clients: int, kills: int, seconds: float, seed: int) -> None:
    """Kill a server under load, and print the kills and comparisons. Raises Violation."""
    print(f"{checkpoint.name}, {clients} clients, {kills} kills, lives of {seconds:g} s on average, seed {seed}")
    print(f"{machine()}; {versions('uvicorn', 'httpx', 'websockets')}; server and clients share the cores", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory, "data")
        with (
            Server(only(checkpoint, Path(directory)), data, "--keep-steps", str(KEPT_STEPS)) as server,
            Load(server.url, checkpoint, clients, seed) as load,
        ):
            ready = kill_again_and_again(server, load, kills, seconds, random.Random(seed))
            steps = check(server, load, checkpoint)
    counts = ", ".join(f"{name} {count}" for name, count in sorted(load.counts.items()))
    print(f"answered: {counts}")
    print(f"ready again after {np.median(ready):.1f} s, at most {max(ready):.1f} s")
    print(f"{steps} outputs compared, {len(load.open)} sessions open, {len(load.ended)} deleted: none lost, none twice")
