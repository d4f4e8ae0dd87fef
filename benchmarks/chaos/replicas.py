"""Faults of several servers, of their database and of the proxy before them, one after the other, under load."""

import itertools
import random
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.chaos import faults
from benchmarks.chaos.checker import Reference, check_answers, check_count, check_ended, check_sessions
from benchmarks.chaos.clock import SOURCE as CLOCK
from benchmarks.chaos.clock import build
from benchmarks.chaos.cluster import Cluster, check_log_of_tapes
from benchmarks.chaos.load import Load
from benchmarks.chaos.outages import OUTAGES, Fault, Outages
from benchmarks.chaos.record import KEPT_STEPS, Track
from benchmarks.chaos.server import only
from benchmarks.machine import load_average, machine, versions
from benchmarks.postgres import running_postgres
from benchmarks.table import print_table
from training.progress import progress_bar

REST = 1.0, 4.0
"""Seconds between two faults."""

THREADS = 4
"""Threads that check sessions, most of whose time passes in waiting for answers."""

LONG_SECONDS = 300.0
"""A run of this length has the long faults too."""


def bring_about(
    cluster: Cluster,
    load: Load,
    seconds: float,
    chance: random.Random,
    least: int = 0,
    chosen: Collection[str] | None = None,
) -> list[Fault]:
    """Bring about one fault after the other for some seconds, and return them. Raises Violation.

    least: how many there are at least, however long that takes; chosen: their names, by default all.
    """
    happened: list[Fault] = []
    end = time.monotonic() + seconds
    for kind in progress_bar(iterable=kinds(seconds, chance, chosen), desc="faults", leave=False, unit="fault"):
        began = time.monotonic()
        if began > end and len(happened) >= least:
            return happened
        faults.ALL[kind](cluster, chance)
        happened.append(Fault(kind, began, time.monotonic()))
        load.wait_for(1)
        time.sleep(chance.uniform(*REST))
    return happened


def kinds(seconds: float, chance: random.Random, chosen: Collection[str] | None = None) -> Iterator[str]:
    """Yield kinds of faults, without end, each once in a round; the first round of a long run has the long ones too."""
    first = [*faults.FAULTS, *faults.LONG_FAULTS] if seconds >= LONG_SECONDS else [*faults.FAULTS]
    rounds = itertools.repeat([*chosen]) if chosen else itertools.chain([first], itertools.repeat([*faults.FAULTS]))
    for names in rounds:
        yield from chance.sample(names, len(names))


def check(cluster: Cluster, load: Load, checkpoint: Path) -> tuple[int, int]:
    """Wait for the clients, and compare all of their answers with the servers and with the database.

    Returns the numbers of outputs and of entries of the log. Raises Violation.
    """
    tracks, reference = load.finish(), Reference(checkpoint)
    entries = check_log_of_tapes(cluster.postgres)
    steps = check_answers(tracks, reference)
    check_count(cluster.url, len(load.open))
    check_sessions_at_once(cluster.url, load.open, checkpoint)
    check_ended(cluster.url, load.ended)
    cluster.check_logs()
    return steps, entries


def check_sessions_at_once(url: str, tracks: Sequence[Track], checkpoint: Path) -> None:
    """Compare open sessions with the clients' records, some in each of several threads. Raises Violation."""
    size = len(tracks) // THREADS + 1
    parts = [tracks[begin : begin + size] for begin in range(0, len(tracks), size)]
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda part: check_sessions(url, part, Reference(checkpoint)), parts))


def run(
    checkpoint: Path,
    servers: int,
    clients: int,
    seconds: float,
    seed: int,
    chosen: Collection[str] | None = None,
    rest: float = 0.0,
) -> None:
    """Bring about faults under load, and print how long sessions were without service. Raises Violation."""
    print(f"{checkpoint.name}, {servers} servers, {clients} clients that rest {rest:g} s between their requests")
    print(f"faults for {seconds:g} s, seed {seed}")
    print(f"{machine()}, {load_average()}; {versions('uvicorn', 'psycopg')}; all share the cores", flush=True)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        library = build(directory / "clock.so", CLOCK)
        flags = ("--keep-steps", str(KEPT_STEPS))
        checkpoints = only(checkpoint, directory)
        with (
            running_postgres() as postgres,
            Cluster(postgres, checkpoints, directory, *flags, servers=servers, library=library) as cluster,
            Load(cluster.url, checkpoint, clients, seed, patient=True, rest=rest) as load,
        ):
            load.wait_for(2 * clients)
            happened = bring_about(cluster, load, seconds, random.Random(seed), chosen=chosen)
            steps, entries = check(cluster, load, checkpoint)
    print_table("outages", OUTAGES, Outages(happened, load.waits))
    report(load, steps, entries)


def report(load: Load, steps: int, entries: int) -> None:
    undisturbed = float(np.median([wait.seconds for wait in load.waits if not wait.again]))
    print(f"\nrequests that were sent once were answered after {undisturbed:.2f} s (median)")
    counts = ", ".join(f"{name} {count}" for name, count in sorted(load.counts.items()))
    print(f"answered: {counts}")
    print(f"{steps} outputs compared, {entries} entries of the log, none lost, none twice, none by two servers;")
    print(f"{len(load.open)} sessions open, {len(load.ended)} deleted")
