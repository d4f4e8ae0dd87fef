"""Figures of a trained model, as the NTM and DNC papers draw them; the same data give the same bytes.

learning.png          errors and loss over training, of every seed
generalisation.png    errors over each size that was measured, the sizes of training shaded
weightings.png        one fresh sequence over time: input, target, output, and where every head writes and reads
memory.png            the memory at some moments of that sequence
usage.png             DNC: the usage of each memory location, and the allocation weightings of the write heads
link.png              DNC: the temporal links at those moments, and the precedence weightings over time
gates.png             the controller's gates and modes of the heads, step by step
"""

import io
from pathlib import Path

from matplotlib.figure import Figure

from models.artefact import load
from models.manifest import MANIFEST_FILE
from training.files import write_atomically
from training.plots.generalisation import figure_of_generalisation, lines_measured
from training.plots.learning import LEARNING_DATA, PlotError, figure_of_learning, learning_curves, task_learned
from training.plots.sequence import figures_of_sequence, record
from training.run_metrics import METRICS_FILE
from training.tasks import build_task

__all__ = ["LEARNING_DATA", "SEQUENCE_SEED", "PlotError", "plot_all"]

SEQUENCE_SEED = 7
"""The seed of the sequence that is drawn."""


def plot_all(directory: Path, out: Path) -> list[Path]:
    """Draw every figure that applies to the checkpoint, the run, or the runs of several seeds in `directory`.

    Returns the files, which are in `out`. Raises PlotError where there is nothing to draw, ManifestError, ConfigError.
    """
    figures = {}
    curves = learning_curves(directory)
    if curves:
        figures["learning.png"] = figure_of_learning(curves, task_learned(directory))
    if (directory / MANIFEST_FILE).exists():
        model, manifest = load(directory)
        task = build_task(manifest.task)
        lines = lines_measured(manifest.evaluation)
        if lines:
            figures["generalisation.png"] = figure_of_generalisation(lines, task)
        figures |= figures_of_sequence(record(model, task, SEQUENCE_SEED))
    if not figures:
        raise PlotError(
            f"{directory}: nothing to draw, for it has neither a {MANIFEST_FILE} nor metrics "
            f"({METRICS_FILE}, seed-N/{METRICS_FILE} or {LEARNING_DATA}); engram train writes them"
        )
    out.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        _write(out / name, figure)
    return [out / name for name in figures]


def _write(path: Path, figure: Figure) -> None:
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=110, metadata={"Software": None})
    write_atomically(path, drawn.getvalue())
