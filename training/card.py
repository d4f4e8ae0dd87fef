"""The README of a checkpoint, written from its manifest, with a figure of one sequence."""

from pathlib import Path
from typing import Any

from models.artefact import load
from models.manifest import Manifest
from training.checkpoint import write_atomically
from training.plots import plot_sequence
from training.tasks import build_task

FIGURE = "weightings.png"
FIGURE_SEED = 7

KINDS = {
    "dnc": "A Differentiable Neural Computer (Graves et al., Nature 538, 2016)",
    "ntm": "A Neural Turing Machine (Graves, Wayne & Danihelka, arXiv 1410.5401)",
    "rnn": "A recurrent network without a memory of its own, to compare with",
}


def write_card(directory: Path) -> Path:
    """Write README.md and the figure of the checkpoint in `directory`; return the README's path."""
    model, manifest = load(directory)
    task = build_task(manifest.task)
    plot_sequence(directory / FIGURE, model, task, task.longest, FIGURE_SEED)
    path = directory / "README.md"
    write_atomically(path, render_card(directory.name, manifest).encode())
    return path


def render_card(name: str, manifest: Manifest) -> str:
    """Return the README: what the model is, how it was trained, what was measured."""
    training = manifest.training
    options = ", ".join(f"{key} {value}" for key, value in manifest.task.items() if key != "name")
    ended = "stopped at its target" if training["reached_target"] else "ran to its last update"
    return f"""# {name}

{KINDS[manifest.kind]}, trained on the task `{manifest.task["name"]}` ({options}).

| | |
|---|---|
{_rows(_facts(manifest))}

## Training

    {training["command"]}

Seed {training["seed"]}, {training["updates"]:,} updates, {training["sequences"]:,} sequences; the run {ended}.

## Measured errors

{_errors(manifest.evaluation)}
## One sequence

![Input, target, output and the weightings of every head over time]({FIGURE})

Outputs are probabilities of a 1 and are drawn where an answer is asked for.
"""


def _facts(manifest: Manifest) -> dict[str, Any]:
    config = manifest.config
    facts = {"input and output": f"{manifest.input_size} and {manifest.output_size} values a step"}
    if "memory_size" in config:
        facts["memory"] = f"{config['memory_size']} slots of {config['word_size']}"
        facts["heads"] = f"{config['read_heads']} read, {config['write_heads']} write"
    facts["controller"] = _cell(config["controller"])
    return facts | {"parameters": f"{manifest.parameters:,}"}


def _cell(config: dict[str, Any]) -> str:
    """Return a cell in words: lstm, 100 units; or the cells of a stack, from the bottom."""
    if "cells" in config:
        return " + ".join(_cell(cell) for cell in config["cells"])
    if "cell" in config:
        return f"{_cell(config['cell'])} with dropout"
    return f"{config['kind']}, {config['hidden_size']} units"


def _rows(facts: dict[str, Any]) -> str:
    return "\n".join(f"| {key} | {value} |" for key, value in facts.items())


def _errors(evaluation: list[dict[str, Any]]) -> str:
    if not evaluation:
        return "Not measured yet.\n"
    lines = [
        "Wrong bits per sequence over fresh sequences, an output above 0.5 taken for a 1.",
        "",
        "| length | memory slots | sequences | wrong bits per sequence | of | sequences with an error |",
        "|---|---|---|---|---|---|",
    ]
    for row in evaluation:
        lines.append(
            f"| {row['length']} | {row['memory_size'] or '-'} | {row['sequences']} | {row['errors_per_sequence']:.4g} "
            f"| {row['bits_per_sequence']} | {row['wrong_sequences']} |"
        )
    commands = dict.fromkeys(row["command"] for row in evaluation)
    return "\n".join([*lines, "", "Printed by:", "", *(f"    {command}" for command in commands), ""])
