"""The tables of `engram bench serve`: one of figures, and two that follow from it."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field

from benchmarks.serve.measuring import Compared, ServePlan, measure
from benchmarks.serve.paths import ECHO
from benchmarks.serve.servers import BEFORE, TRITON
from benchmarks.table import Row, Table, figure

FIGURES = ("rate", "p50_ms", "p99_ms", "load_cpu", "cpu")

FEW_ANSWERS = 10
"""The least answers of a connection in a turn for which one more or less does not change fairness."""


@dataclass(frozen=True)
class Report:
    """A plan and the results so far."""

    plan: ServePlan
    results: list[Compared] = field(default_factory=list)


def _served_rows(report: Report) -> Iterator[Row]:
    for compared in measure(report.plan):
        report.results.append(compared)
        yield from (_served_row(compared, name) for name in compared.turns)


def _served_row(compared: Compared, name: str) -> Row:
    turns = compared.turns[name]
    cpus = [turn.cpu for turn in turns]
    return (
        compared.path.name,
        compared.connections,
        name,
        *(compared.median(name, of) for of in FIGURES[:3]),
        _cell(_slowest(compared, name)),
        *(compared.median(name, of) for of in FIGURES[3:]),
        f"{figure(min(cpus))}-{figure(max(cpus))}",
        _cell(compared.ratio("cpu", name, ECHO)),
        sum(turn.errors for turn in turns),
    )


def _slowest(compared: Compared, name: str) -> float | None:
    few = any(turn.answers < FEW_ANSWERS * compared.connections for turn in compared.turns[name])
    return None if few else compared.median(name, "slowest_of_mean")


def _cell(ratio: float | None) -> float | str:
    return "-" if ratio is None else ratio


SERVED: Table[Report] = Table(
    "Served requests",
    "Closed loop: a connection sends its next request when it has the answer to the last. p50 and p99 in milliseconds; "
    "slowest / mean: requests of the slowest connection beside those of the mean, unless that is less than 10. CPU: "
    "microseconds of processor time for each request, of the load generator, and of the server with all its threads "
    "and processes: the median, and the least and the most of the rounds. `ceiling` is the most that the load "
    "generator can do.",
    (
        "path",
        "connections",
        "server",
        "requests/s",
        "p50",
        "p99",
        "slowest / mean",
        "load's CPU",
        "CPU",
        "in rounds",
        "CPU / echo's",
        "errors",
    ),
    _served_rows,
)


def _ratio_rows(report: Report) -> Iterator[Row]:
    for compared in report.results:
        engram, backend = next(iter(compared.turns)), statistics.median(compared.backend)
        ratios = (
            compared.ratio("cpu", engram, ECHO),
            compared.ratio("cpu", engram, ECHO, with_backend=True),
            compared.ratio("p50_ms", engram, ECHO),
            compared.ratio("rate", engram, "none") if engram != "none" else None,
            compared.ratio("cpu", "picows", ECHO),
            compared.ratio("cpu", "plain", engram),
            compared.ratio("cpu", TRITON, engram),
        )
        yield compared.path.name, compared.connections, engram, backend, *map(_cell, ratios)


RATIOS: Table[Report] = Table(
    "Engram beside the floors",
    "Engram with the durability that the row names. Ratios of processor time where nothing else is said, medians of "
    "the ratios in each round. back end: microseconds of the bare back end for the steps of a request, in batches of "
    "as many requests as there are connections.",
    (
        "path",
        "connections",
        "Engram",
        "back end",
        "Engram / echo",
        "Engram / (echo + back end)",
        "p50: Engram / echo",
        "requests/s: Engram / none",
        "picows / echo",
        "plain / Engram",
        "Triton / Engram",
    ),
    _ratio_rows,
)


def _peer_rows(report: Report) -> Iterator[Row]:
    for compared in measure(report.plan):
        report.results.append(compared)
        yield from (_peer_row(compared, name) for name in compared.turns)


def _peer_row(compared: Compared, name: str) -> Row:
    engram, turns = next(iter(compared.turns)), compared.turns[name]
    rates = [turn.rate for turn in turns]
    return (
        compared.connections,
        name,
        compared.median(name, "rate"),
        f"{figure(min(rates))}-{figure(max(rates))}",
        *(compared.median(name, of) for of in ("p50_ms", "p99_ms", "load_cpu", "cpu")),
        _cell(compared.ratio("rate", engram, name)),
        _cell(compared.ratio("p50_ms", name, engram)),
        _cell(compared.ratio("cpu", name, engram)),
        sum(turn.errors for turn in turns),
    )


PEERS: Table[Report] = Table(
    "One step of one session by POST",
    "Closed loop: a connection sends its next request when it has the answer to the last. p50 and p99 in milliseconds. "
    "CPU: microseconds of processor time for each request, of the load generator, and of the server with all its "
    "threads and processes. Medians, and the least and the most of the rounds. Engram is the first server of each "
    "group; ratios to it are medians of those of each round. `ceiling` is the most that the load generator can do.",
    (
        "connections",
        "server",
        "requests/s",
        "in rounds",
        "p50",
        "p99",
        "load's CPU",
        "CPU",
        "requests/s: Engram / this",
        "p50: this / Engram",
        "CPU: this / Engram",
        "errors",
    ),
    _peer_rows,
)


def _before_rows(report: Report) -> Iterator[Row]:
    for compared in report.results:
        now = next(iter(compared.turns))
        for before in (name for name in compared.turns if name.startswith(BEFORE)):
            ratios = (compared.ratio(of, now, before) for of in ("cpu", "p50_ms", "p99_ms", "rate"))
            yield compared.path.name, compared.connections, now, before, *map(_cell, ratios)


CHANGED: Table[Report] = Table(
    "Engram beside the checkout of --before",
    "Medians of the ratios in each round, now / before. CPU: processor time of the server for each request.",
    ("path", "connections", "now", "before", "CPU", "p50", "p99", "requests/s"),
    _before_rows,
)


def _open_rows(report: Report) -> Iterator[Row]:
    for turn in (turn for compared in report.results for turn in compared.open_loop):
        figures = turn.rate, turn.p50_ms, turn.p99_ms, turn.p999_ms, turn.cpu, turn.errors
        yield turn.path, turn.connections, turn.server, f"{turn.percent:g}%", *figures


OPEN_LOOP: Table[Report] = Table(
    "Open loop",
    "Requests at fixed times, whether the answer before has come or not: so many percent of those that the closed loop "
    "had answered. Milliseconds from the time at which a request was due, so that waiting behind a slow answer counts.",
    ("path", "connections", "server", "of the rate", "requests/s", "p50", "p99", "p99.9", "CPU", "errors"),
    _open_rows,
)
