"""Options of the benchmarks that serve a model."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engram.options import percent, positive, seconds

if TYPE_CHECKING:
    from benchmarks.serve import Options

DURABILITIES = ("ack", "none", "interval")
"""The keys of benchmarks.serve.servers.SERVERS that are Engram."""


def add_served_model(parser: argparse.ArgumentParser) -> None:
    """Add the model to serve."""
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"), help="directory of the models")
    parser.add_argument("--model", default="dnc-copy", help="which of them")


def add_serving(parser: argparse.ArgumentParser, connections: Sequence[int]) -> None:
    """Add the options of the benchmarks of serving."""
    add_served_model(parser)
    parser.add_argument("--connections", type=positive, nargs="+", default=connections, help="at a time")
    parser.add_argument(
        "--durability",
        nargs="+",
        choices=DURABILITIES,
        default=["ack", "none"],
        help="of Engram's servers; the first is the one whose ratios are printed",
    )
    parser.add_argument("--rounds", type=positive, default=3, help="turns of each server of which the median is taken")
    parser.add_argument("--seconds", type=seconds, default=1.0, help="time of each turn")
    parser.add_argument(
        "--open-loop",
        type=percent,
        nargs="+",
        default=[],
        metavar="PERCENT",
        help="also requests at fixed times: so many percent of the rate, as in 50 80 95",
    )
    parser.add_argument("--triton", type=Path, metavar="DIR", help="also NVIDIA Triton, which a package put there")
    parser.add_argument("--before", type=Path, metavar="DIR", help="also Engram of another checkout, built, in DIR")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures to a JSON file")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also draw the processor time of a request, as PNG")
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="where the servers write meanwhile (default: .)")


def serving_options(options: argparse.Namespace, packages: Path | None = None) -> "Options":
    """Return the options of benchmarks.serve."""
    from benchmarks.serve import Options

    return Options(
        checkpoints=options.checkpoints,
        model=options.model,
        connections=options.connections,
        durabilities=options.durability,
        rounds=options.rounds,
        seconds=options.seconds,
        percents=options.open_loop,
        data_root=options.data_root,
        command=options.command_line,
        json_file=options.json,
        plot_file=options.plot,
        triton=options.triton,
        packages=packages,
        before=options.before,
    )
