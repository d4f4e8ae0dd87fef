"""engram isolate: look for the state of one session in another."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engram.options import Commands, add_json, command, positive
from engram.output import print_json

if TYPE_CHECKING:
    from benchmarks.isolation import Options, Report

BACKENDS = ("auto", "fused", "onnx", "torch")


def add(commands: Commands) -> None:
    about = (
        "Look for the state of one session in another: serve a model, step sessions alone and beside others that do "
        "their worst, and compare outputs and states. The status is 1 if one session is seen in another."
    )
    parser = command(commands, "isolate", about)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="names of checkpoints in the directory")
    parser.add_argument("--all", action="store_true", help="all checkpoints of the directory")
    parser.add_argument(
        "--checkpoints", type=Path, default=Path("checkpoints"), metavar="DIR", help="directory of the models"
    )
    parser.add_argument("--backend", choices=BACKENDS, default="auto", help="the back end of the main server")
    parser.add_argument(
        "--sessions", type=positive, default=4, help="observed sessions, and as many others beside them"
    )
    parser.add_argument("--steps", type=positive, default=12, help="steps of each session")
    parser.add_argument("--seed", type=int, default=0, help="of all inputs")
    parser.add_argument("--markdown", action="store_true", help="print a table with a row for each model")
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print a report of each model, and return 1 if one session is seen in another, or a server fails."""
    from benchmarks.isolation import Options, check
    from benchmarks.isolation.report import as_json, lines, markdown, setting
    from benchmarks.machine import machine, versions

    settings = Options(options.checkpoints, options.backend, options.sessions, options.steps, options.seed)
    check(settings)
    if options.json and options.markdown:
        raise ValueError("--json or --markdown, not both")
    models = _chosen(options)
    at_once = not (options.json or options.markdown)
    reports = _reports(settings, models, lambda report: "\n".join(lines(report, settings)) if at_once else None)
    if options.json:
        print_json([as_json(report) for report in reports])
    if options.markdown:
        print(f"`{options.command_line}` on {machine()}; {versions('numpy', 'onnxruntime')};")
        print(f"{setting(settings)}:", "", *markdown(reports), sep="\n")
    if not at_once:
        for report in reports:
            print(*(f"engram: {report.model}: {fault}\n" for fault in report.faults), sep="", end="", file=sys.stderr)
    return 1 if any(report.faults for report in reports) else 0


def _chosen(options: argparse.Namespace) -> list[str]:
    """Return the names of the models. Raises ValueError if there is none, or no checkpoint of a name."""
    from models.manifest import MANIFEST_FILE

    known = sorted(path.parent.name for path in options.checkpoints.glob(f"*/{MANIFEST_FILE}"))
    if options.all == bool(options.models):
        raise ValueError("which models? Give their names, or --all")
    for name in options.models:
        if name not in known:
            raise ValueError(f"no checkpoint {name!r} in {options.checkpoints}; there are {', '.join(known) or 'none'}")
    if not known:
        raise ValueError(f"no checkpoints in {options.checkpoints}; --checkpoints gives their directory")
    return options.models or known


def _reports(settings: "Options", models: Sequence[str], text: Callable[["Report"], str | None]) -> list["Report"]:
    """Return the report of each model, with a progress bar. text: returns what to print of one when it is known."""
    from benchmarks.isolation import SITUATIONS, isolate
    from training.progress import progress_bar

    reports = []
    with progress_bar(total=len(models) * len(SITUATIONS), unit="situation", leave=False) as bar:
        for number, model in enumerate(models):

            def show(done: int, of: int, name: str, number: int = number, model: str = model) -> None:
                bar.set_description(f"{model}: {name}", refresh=False)
                bar.update(number * of + done - bar.n)

            reports.append(isolate(settings, model, show))
            printed = text(reports[-1])
            if printed:
                bar.write(printed, file=sys.stdout)
    return reports
