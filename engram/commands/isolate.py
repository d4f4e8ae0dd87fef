"""engram isolate: look for the state of one session in another."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from engram.options import Checkpoints, Json, checkpoint_names, positive, recorded, whole
from engram.output import print_json

if TYPE_CHECKING:
    from benchmarks.isolation import Options, Report


def run(
    context: typer.Context,
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL", help="names of checkpoints in the directory", autocompletion=checkpoint_names),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="all checkpoints of the directory")] = False,
    checkpoints: Checkpoints = Path("checkpoints"),
    backend: Annotated[
        Literal["auto", "fused", "onnx", "torch"], typer.Option("--backend", help="the back end of the main server")
    ] = "auto",
    sessions: Annotated[
        int,
        typer.Option(
            "--sessions", parser=positive, metavar="N", help="observed sessions, and as many others beside them"
        ),
    ] = 4,
    steps: Annotated[int, typer.Option("--steps", parser=positive, metavar="N", help="steps of each session")] = 12,
    seed: Annotated[int, typer.Option("--seed", parser=whole, metavar="SEED", help="of all inputs")] = 0,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="print a table with a row for each model")] = False,
    as_json: Json = False,
) -> int:
    """Print a report of each model, and return 1 if one session is seen in another, or a server fails."""
    from benchmarks.isolation import Options, check
    from benchmarks.isolation.report import as_json as document
    from benchmarks.isolation.report import lines, markdown, setting
    from benchmarks.machine import machine, versions

    settings = Options(checkpoints, backend, sessions, steps, seed)
    check(settings)
    if as_json and as_markdown:
        raise ValueError("--json or --markdown, not both")
    chosen = _chosen(models or [], all_, checkpoints)
    at_once = not (as_json or as_markdown)
    reports = _reports(settings, chosen, lambda report: "\n".join(lines(report, settings)) if at_once else None)
    if as_json:
        print_json([document(report) for report in reports])
    if as_markdown:
        print(f"`{recorded(context)}` on {machine()}; {versions('numpy', 'onnxruntime')};")
        print(f"{setting(settings)}:", "", *markdown(reports), sep="\n")
    if not at_once:
        for report in reports:
            print(*(f"engram: {report.model}: {fault}\n" for fault in report.faults), sep="", end="", file=sys.stderr)
    return 1 if any(report.faults for report in reports) else 0


def _chosen(models: list[str], all_: bool, checkpoints: Path) -> list[str]:
    """Return the names of the models. Raises ValueError if there is none, or no checkpoint of a name."""
    from models.manifest import MANIFEST_FILE

    known = sorted(path.parent.name for path in checkpoints.glob(f"*/{MANIFEST_FILE}"))
    if all_ == bool(models):
        raise ValueError("which models? Give their names, or --all")
    for name in models:
        if name not in known:
            raise ValueError(f"no checkpoint {name!r} in {checkpoints}; there are {', '.join(known) or 'none'}")
    if not known:
        raise ValueError(f"no checkpoints in {checkpoints}; --checkpoints gives their directory")
    return models or known


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
