"""Figures of a model on one sequence: its weightings, memory, usage, links and gates."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from models.addressing import as_columns
from models.contract import MemoryModel, Trace, evaluating
from models.state import flatten
from training.panels import Array, HeatMap, Lines, Panel, Words, figure_over_time, heat_map, largest
from training.tasks import Task

MOMENTS = 4
"""The number of moments, evenly spaced and the last at the end, at which memory and links are drawn whole."""

OUTPUTS = {"sigmoid": "bit", "softmax": "class", "identity": "value"}
"""The title of outputs, by their activation."""


class Recording(NamedTuple):
    """The recorded values of one sequence of T steps."""

    model: MemoryModel[Any]
    task: Task
    inputs: Tensor
    """[T, input_size]"""
    targets: Tensor
    """[T, output_size]"""
    outputs: Tensor
    """[T, output_size], activated"""
    asked: Tensor
    """[T], whether an answer is due"""
    trace: Trace
    """The traces of every step, and the precedence weightings of the states: [T, ...]"""
    moments: dict[int, dict[str, Tensor]]
    """The leaves of the state, by the number of steps taken"""


@torch.inference_mode()
def record(model: MemoryModel[Any], task: Task, seed: int) -> Recording:
    """Run the model on one fresh sequence of the task's greatest sizes and return the recording."""
    episode = task.greatest.sample(torch.Generator().manual_seed(seed), 1)
    steps = len(episode.mask) if episode.lengths is None else int(episode.lengths[0])
    at = {max(1, round(steps * part / MOMENTS)) for part in range(1, MOMENTS + 1)}
    state = model.initial_state(1)
    outputs, traces, moments = [], [], {}
    with evaluating(model):
        for number, inputs in enumerate(episode.inputs[:steps], 1):
            step_outputs, state, trace = model.step(inputs, state)
            leaves = flatten(state)
            outputs.append(model.activate(step_outputs)[0])
            traces.append(trace | {name: leaf for name, leaf in leaves.items() if name == "precedence_weights"})
            if number in at:
                moments[number] = {name: leaf[0] for name, leaf in leaves.items()}
    return Recording(
        model=model,
        task=task,
        inputs=episode.inputs[:steps, 0],
        targets=episode.targets[:steps, 0],
        outputs=torch.stack(outputs),
        asked=episode.mask[:steps, 0] > 0,
        trace={name: torch.stack([trace[name][0] for trace in traces]) for name in traces[0]},
        moments=moments,
    )


def figures_of_sequence(recording: Recording) -> dict[str, Figure]:
    """Return the figures that apply to the model, by the name of their file."""
    leaves = recording.moments[len(recording.inputs)]
    figures = {"weightings.png": figure_of_sequence(recording)}
    if "memory" in leaves and leaves["memory"].dim() == 2:
        figures["memory.png"] = figure_of_memory(recording)
    if "usage" in recording.trace:
        figures["usage.png"] = figure_of_usage(recording)
    if "link" in leaves:
        figures["link.png"] = figure_of_links(recording)
    if any(name in recording.trace for name in GATES):
        figures["gates.png"] = figure_of_gates(recording)
    return figures


def figure_of_sequence(recording: Recording) -> Figure:
    """Draw input, target and output over time, and the weightings of every head."""
    model = recording.model
    label, group = OUTPUTS[model.output_activation], model.output_size // model.output_groups
    targets, outputs = (_where_asked(recording, values) for values in (recording.targets, recording.outputs))
    panels = [
        _input_panel(recording),
        HeatMap("target (grey: no answer is asked for)", label, targets, group=group),
        HeatMap("output", label, outputs, group=group, signed=model.output_activation == "identity"),
        *_weightings(recording, "write_weights"),
        *_weightings(recording, "read_weights"),
    ]
    return figure_over_time(panels, len(recording.inputs))


def _input_panel(recording: Recording) -> Panel:
    if recording.model.embedding is None:
        values = recording.inputs.numpy()
        signed = bool((values < 0).any() or (values > 1).any())
        return HeatMap("input", "channel", values, signed=signed)
    words = recording.task.options.get("vocabulary")
    tokens = recording.inputs[:, 0].int().tolist()
    return Words("input", "word" if words else "token", [words[token] if words else str(token) for token in tokens])


def _where_asked(recording: Recording, values: Tensor) -> Array:
    asked: Array = torch.where(recording.asked[:, None], values, torch.nan).numpy()
    return asked


def _weightings(recording: Recording, name: str) -> list[Panel]:
    """Return a panel for each head: [T, heads, N] of the trace."""
    title = name.replace("_", " ")
    heads = recording.trace[name].unbind(1) if name in recording.trace else ()
    return [HeatMap(f"{title}, head {head}", "location", values.numpy()) for head, values in enumerate(heads)]


def figure_of_usage(recording: Recording) -> Figure:
    """Draw the usage of each memory location, and the allocation weightings that follow from it."""
    usage = HeatMap("usage", "location", recording.trace["usage"].numpy())
    panels = [_input_panel(recording), usage, *_weightings(recording, "allocation_weights")]
    return figure_over_time(panels, len(recording.inputs))


class Gate(NamedTuple):
    """The drawing of a quantity of the trace that the controller outputs for heads."""

    heads: Literal["read", "write", "all"]
    """The heads to which the quantity belongs."""
    label: str
    top: float | None


GATES = {
    "allocation_gate": Gate("write", "gate", 1),
    "write_gate": Gate("write", "gate", 1),
    "free_gates": Gate("read", "gate", 1),
    "read_modes": Gate("read", "", 1),
    "key_strength": Gate("all", "strength", None),
    "interpolation_gate": Gate("all", "gate", 1),
    "shift_weights": Gate("all", "", 1),
    "sharpening": Gate("all", "exponent", None),
}


def figure_of_gates(recording: Recording) -> Figure:
    """Draw the controller's outputs for the heads: a line for each head, or a row for each mode and each shift.

    Below them, the shares of stored programs, a row for each.
    """
    panels = [_gate_panel(recording, name) for name in GATES if name in recording.trace]
    if "program_weights" in recording.trace:
        panels.append(HeatMap("program weights", "program", recording.trace["program_weights"].numpy()))
    return figure_over_time([_input_panel(recording), *panels], len(recording.inputs))


def _gate_panel(recording: Recording, name: str) -> Panel:
    values, gate, title = recording.trace[name].numpy(), GATES[name], name.replace("_", " ")
    heads = _heads(recording, gate.heads)
    if values.ndim == 2:
        return Lines(title, gate.label, values, heads, gate.top)
    parts = _modes(recording) if name == "read_modes" else _shifts(values.shape[2])
    rows = [f"{head}: {part}" for head in heads for part in parts]
    return HeatMap(title, gate.label, values.reshape(len(values), -1), rows, group=len(parts))


def _heads(recording: Recording, which: Literal["read", "write", "all"]) -> list[str]:
    """Return the names of heads; if all are meant, the read heads first."""
    kinds = ("read", "write") if which == "all" else (which,)
    return [f"{kind} head {head}" for kind in kinds for head in range(recording.trace[f"{kind}_weights"].shape[1])]


def _modes(recording: Recording) -> list[str]:
    """Return the names of the read modes, in order; every write head has links of its own."""
    writes = recording.trace["write_weights"].shape[1]
    along = [f" {head}" if writes > 1 else "" for head in range(writes)]
    return [f"{way}{head}" for way in ("backward", "forward") for head in along] + ["content"]


def _shifts(width: int) -> list[str]:
    return [f"{offset:+d}" if offset else "0" for offset in range(-(width // 2), width // 2 + 1)]


def figure_of_memory(recording: Recording) -> Figure:
    """Draw the memory, locations by elements of a word, at the moments of the recording."""
    memories = {moment: leaves["memory"].numpy() for moment, leaves in recording.moments.items()}
    limit = max(largest(memory) for memory in memories.values())
    locations, word = next(iter(memories.values())).shape
    size = (1.5 + len(memories) * max(1.6, min(4.0, 0.11 * word)), 1 + max(2.0, min(8.0, 0.11 * locations)))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(memories), sharey=True, squeeze=False)[0]
    for axis, (moment, memory) in zip(axes, memories.items(), strict=True):
        image = heat_map(axis, memory, limit)
        axis.set_title(_after(recording, moment), fontsize=9)
        axis.set_xlabel("element of the word")
    axes[0].set_ylabel("location")
    figure.colorbar(image, ax=axes, fraction=0.03, label="memory contents")
    return figure


def figure_of_links(recording: Recording) -> Figure:
    """Draw the links of every write head, [N, N], at the moments of the recording; below, the precedence."""
    moments = list(recording.moments)
    precedence = recording.trace["precedence_weights"]
    heads = range(precedence.shape[1])
    figure = Figure(figsize=(1.5 + 2.7 * len(moments), 0.5 + (2.9 + 2.4) * len(heads)), layout="constrained")
    rows = [[f"link {head} {moment}" for moment in moments] for head in heads]
    rows += [[f"precedence {head}"] * len(moments) for head in heads]
    axes: dict[str, Axes] = figure.subplot_mosaic(rows, height_ratios=[2.9] * len(heads) + [2.4] * len(heads))
    for head in heads:
        for moment in moments:
            axis, links = axes[f"link {head} {moment}"], dense_links(recording.moments[moment])[head]
            image = heat_map(axis, links.numpy(), None, aspect="equal")
            axis.set_title(f"links, head {head}\n{_after(recording, moment)}", fontsize=9)
            axis.set_xlabel("location j")
        axes[f"link {head} {moments[0]}"].set_ylabel("location i, written right after j")
        axis = axes[f"precedence {head}"]
        heat_map(axis, precedence[:, head].T.numpy(), None)
        axis.set_title(f"precedence weights, head {head}", loc="left", fontsize=9)
        axis.set_xlabel("time (steps)")
        axis.set_ylabel("location")
    figure.colorbar(image, ax=list(axes.values()), fraction=0.03, label="value, from 0 to 1")
    return figure


def dense_links(leaves: Mapping[str, Tensor]) -> Tensor:
    """Return the whole link matrix of a state, also if it holds only the largest entries of its rows: [V, N, N]."""
    link = leaves["link"]
    if "link_columns" not in leaves:
        return link
    size = link.shape[1]
    return link.new_zeros(*link.shape[:2], size).scatter(2, as_columns(leaves["link_columns"], size), link)


def _after(recording: Recording, moment: int) -> str:
    return f"after {moment} of {len(recording.inputs)} steps"
