"""Figures of what a model did, as the papers draw them."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from models.contract import MemoryModel, unroll
from training.tasks import Task

mpl.use("Agg")


@torch.no_grad()
def plot_sequence(path: Path, model: MemoryModel[Any], task: Task, length: int, seed: int) -> None:
    """Draw one fresh sequence over time: input, target, output, and the weighting of every head; write it as PNG."""
    episode = task.sample(torch.Generator().manual_seed(seed), 1, length)
    initial = model.initial_state(1)
    _, _, first = model.step(episode.inputs[0], initial)
    heads = [name for name in ("write_weights", "read_weights") if name in first]
    outputs, _, trace = unroll(model, episode.inputs, initial, trace=heads)

    panels = [
        ("input", "channel", episode.inputs[:, 0]),
        ("target", "bit", episode.targets[:, 0]),
        ("output", "bit", torch.sigmoid(outputs[:, 0]) * episode.mask),
    ]
    for name in heads:
        for head in range(trace[name].shape[2]):
            panels.append((f"{name.replace('_', ' ')}, head {head}", "slot", trace[name][:, 0, head]))
    _draw(path, [(title, axis, values.numpy().T) for title, axis, values in panels])


def _draw(path: Path, panels: "list[tuple[str, str, np.ndarray[Any, Any]]]") -> None:
    """Draw heat maps under each other on one time axis and one scale from 0 to 1."""
    heights = [max(8.0, min(32.0, values.shape[0])) for _, _, values in panels]
    figure = Figure(figsize=(9, 1.2 + 0.11 * sum(heights) + 0.35 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (title, label, values) in zip(axes, panels, strict=True):
        image = axis.imshow(values, aspect="auto", origin="lower", vmin=0, vmax=1, interpolation="nearest")
        axis.set_title(title, loc="left", fontsize=9)
        axis.set_ylabel(label)
        axis.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes[-1].set_xlabel("time (steps)")
    figure.colorbar(image, ax=axes, fraction=0.03, label="value, from 0 to 1")
    figure.savefig(path, dpi=110, metadata={"Software": None})
