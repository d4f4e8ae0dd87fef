"""The cost of a served step: `engram bench serve` and `peers`. paths.py lists the paths, servers.py the servers."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.open_files import allow_connections
from benchmarks.serve.measuring import Compared, ServePlan, check_all
from benchmarks.serve.paths import BESIDE_PEERS, PATHS, ServedPath
from benchmarks.serve.servers import chosen_servers, command_lines, running_servers
from benchmarks.serve.setting import Setting, heading
from benchmarks.serve.tables import CHANGED, OPEN_LOOP, PEERS, RATIOS, SERVED, Report
from benchmarks.table import Table, print_table


@dataclass(frozen=True)
class Options:
    """Options of both benchmarks.

    percents: shares of the closed loop's rate at which the open loop is measured too. data_root: the parent of the
    servers' temporary data directories, by default the current directory. command: the command line of this run.
    json_file, plot_file: files for all figures, and for a plot. triton, packages: directories of the packages with
    Triton, and with LitServe and Ray Serve, to measure them too. before: another checkout of Engram, to measure it too.
    """

    checkpoints: Path
    model: str
    connections: Sequence[int]
    durabilities: Sequence[str]
    rounds: int
    seconds: float
    percents: Sequence[float]
    data_root: Path | None
    command: str
    json_file: Path | None = None
    plot_file: Path | None = None
    triton: Path | None = None
    packages: Path | None = None
    before: Path | None = None


def run(options: Options, paths: Sequence[str]) -> None:
    """Print the tables of some paths at each number of connections, beside the floors. Raises as `run_peers` does."""
    _run(options, [PATHS[name] for name in paths], SERVED, [RATIOS])


def run_peers(options: Options) -> None:
    """Print the table of servers of others at each number of connections.

    Raises WrongOutputs if a server gives a wrong answer, or loses a step, FileNotFoundError if a directory lacks its
    package, TooManyConnections, LoadFailed.
    """
    _run(options, [BESIDE_PEERS], PEERS, [])


def _run(
    options: Options, paths: Sequence[ServedPath], measured: Table[Report], derived: Sequence[Table[Report]]
) -> None:
    if options.plot_file:
        from benchmarks.serve.plot import plot  # a missing matplotlib is reported before anything is measured
    allow_connections(max(options.connections))
    with tempfile.TemporaryDirectory(dir=options.data_root or Path.cwd()) as directory:
        setting = _setting(options, paths, Path(directory))
        names, left_out = chosen_servers(
            options.durabilities, [name for path in paths for name in path.beside], setting
        )
        head = [*heading(options.command), _rounds_line(options), *_server_lines(paths, names, setting), *left_out]
        print(*head, sep="\n", flush=True)
        with running_servers(names, setting) as servers:
            plan = ServePlan(
                setting, servers, paths, options.connections, options.rounds, options.seconds, options.percents
            )
            for line in check_all(plan):
                print(line, flush=True)
                head.append(line)
            report = Report(plan)
            print_table("serve", measured, report)
    for table in (*derived, *([CHANGED] if options.before else []), *([OPEN_LOOP] if options.percents else [])):
        print_table(table.title, table, report)
    if options.json_file:
        options.json_file.write_text(
            json.dumps({"setting": head, "results": list(map(figures, report.results))}, indent=2)
        )
    if options.plot_file:
        plot(report.results, options.plot_file)


def _setting(options: Options, paths: Sequence[ServedPath], data: Path) -> Setting:
    sessions = max(max(path.counts(options.connections), default=1) * max(1, path.sessions) for path in paths)
    places = options.triton, options.packages, options.before
    return Setting(options.checkpoints, options.model, sessions, data, *places)


def _rounds_line(options: Options) -> str:
    return f"Medians of {options.rounds} rounds of {options.seconds:g} s for each; all share the cores.\n"


def _server_lines(paths: Sequence[ServedPath], names: Sequence[str], setting: Setting) -> list[str]:
    return [*(f"- {path.name}: {path.about}" for path in paths), *command_lines(names, setting)]


def figures(compared: Compared) -> dict[str, Any]:
    """Return the figures of a path at a number of connections, for programs: every turn of every server."""
    return {
        "path": compared.path.name,
        "connections": compared.connections,
        "sessions": compared.path.sessions,
        "steps": compared.path.steps,
        "backend_cpu": list(compared.backend),
        "turns": [turn._asdict() for turns in (*compared.turns.values(), compared.open_loop) for turn in turns],
    }
