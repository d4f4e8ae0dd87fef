"""What a served step costs: `engram bench serve`. paths.py says by which ways, servers.py beside what."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.serve.measuring import Compared, Plan
from benchmarks.serve.paths import PATHS
from benchmarks.serve.servers import chosen_servers, running_servers, told_commands
from benchmarks.serve.setting import Setting, allow_connections, heading
from benchmarks.serve.tables import OPEN_LOOP, RATIOS, SERVED, Report
from benchmarks.table import print_table


def run(
    checkpoints: Path,
    model: str,
    paths: Sequence[str],
    connections: Sequence[int],
    durabilities: Sequence[str],
    rounds: int,
    seconds: float,
    percents: Sequence[float],
    data_root: Path | None,
    command: str,
    json_file: Path | None = None,
    plot_file: Path | None = None,
    triton: Path | None = None,
) -> None:
    """Print the tables of some paths at each number of connections.

    percents: shares of the closed loop's rate at which the open loop is measured too. data_root: where the servers'
    data directories go for the time of the run, if not below the current directory. command: how this was started.
    json_file, plot_file: where all figures, and a plot, go too. triton: where the package with Triton is, if it is to
    be measured too. Raises WrongOutputs where a server answers what it should not, or loses a step, FileNotFoundError
    where there is no Triton, TooManyConnections, LoadFailed.
    """
    if plot_file:
        from benchmarks.serve.plot import plot  # needs matplotlib: told before anything is measured
    allow_connections(max(connections))
    chosen = [PATHS[name] for name in paths]
    with tempfile.TemporaryDirectory(dir=data_root or Path.cwd()) as directory:
        sessions = max(max(path.counts(connections), default=1) * max(1, path.sessions) for path in chosen)
        setting = Setting(checkpoints, model, sessions, Path(directory), triton)
        names, left_out = chosen_servers(durabilities, [name for path in chosen for name in path.beside], triton)
        head = [*heading(command), f"Medians of {rounds} rounds of {seconds:g} s for each; all share the cores.", ""]
        head += [*(f"- {path.name}: {path.about}" for path in chosen), *told_commands(names, setting), *left_out]
        print(*head, sep="\n", flush=True)
        with running_servers(names, setting) as servers:
            report = Report(Plan(setting, servers, chosen, connections, rounds, seconds, percents))
            print_table("serve", SERVED, report)
    print_table("ratios", RATIOS, report)
    if percents:
        print_table("open loop", OPEN_LOOP, report)
    if json_file:
        json_file.write_text(json.dumps({"setting": head, "results": list(map(told, report.results))}, indent=2))
    if plot_file:
        plot(report.results, plot_file)


def told(compared: Compared) -> dict[str, Any]:
    """Return what was measured of a path at a number of connections, for programs: every turn of every server."""
    return {
        "path": compared.path.name,
        "connections": compared.connections,
        "sessions": compared.path.sessions,
        "steps": compared.path.steps,
        "backend_cpu": list(compared.backend),
        "turns": [turn._asdict() for turns in (*compared.turns.values(), compared.open_loop) for turn in turns],
    }
