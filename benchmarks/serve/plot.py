"""Figure of the processor time of a request: a part for each path, a line for each server."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib import color_sequences
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.serve.measuring import Compared
from benchmarks.serve.servers import SERVERS

WIDTH, HEIGHT = 4.5, 3.8
"""Width and height of a part, in inches."""


def plot(results: Sequence[Compared], path: Path) -> None:
    """Write a figure of medians, with bars from the least to the greatest of the rounds."""
    names = list(dict.fromkeys(compared.path.name for compared in results))
    figure = Figure(figsize=(WIDTH * len(names), HEIGHT), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        _draw(axes, [compared for compared in results if compared.path.name == name])
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)


def _draw(axes: Axes, results: Sequence[Compared]) -> None:
    for name in results[0].turns:
        cpus = [[turn.cpu for turn in compared.turns[name]] for compared in results]
        medians = [compared.median(name, "cpu") for compared in results]
        below = [median - min(rounds) for median, rounds in zip(medians, cpus, strict=True)]
        above = [max(rounds) - median for median, rounds in zip(medians, cpus, strict=True)]
        numbers = [compared.connections for compared in results]
        color = color_sequences["tab20"][list(SERVERS).index(name)]  # the same in every part
        axes.errorbar(numbers, medians, [below, above], marker="o", capsize=3, color=color, label=name)
    axes.set(title=results[0].path.about, xlabel="connections", ylabel="server's CPU, µs a request")
    axes.set(xscale="log", yscale="log")
