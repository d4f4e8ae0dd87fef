"""The README of a checkpoint, written from its manifest, with its figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.manifest import GRAPH_KIND, Manifest, read_manifest
from training.evaluation import options_text
from training.files import write_atomically
from training.front_matter import front_matter, license_of
from training.table import cost_text, errors_text, goal_text, of_text
from training.tasks import NO_TASK, TASKS

CARD_FILE = "README.md"

FIGURES = {
    "learning.png": "Errors over training, of every seed",
    "generalisation.png": "Errors beyond the sizes of training",
    "weightings.png": "One sequence: input, target, output and the weightings of every head over time",
    "gates.png": "The gates of that sequence",
    "usage.png": "The usage of the memory and where it was allocated",
    "memory.png": "The memory",
    "link.png": "The links between slots, in the order of writing",
}
"""The figures that a checkpoint may have, in the order of the card; training.plots draws them."""

HIDDEN = ("name", "vocabulary", "interchangeable", "cloze", "shares")
"""Options of a task that its card does not list: its name stands before them, the others are lists."""

KINDS = {
    "dnc": "A Differentiable Neural Computer (Graves et al., Nature 538, 2016)",
    "ntm": "A Neural Turing Machine (Graves, Wayne & Danihelka, arXiv 1410.5401)",
    "rnn": "A recurrent network without a memory of its own, to compare with",
}


def write_card(directory: Path, license_id: str | None = None) -> Path:
    """Write the card of the checkpoint in `directory`, with the figures that are there; return its path.

    license_id: of the weights, as the Hugging Face Hub names it; None keeps that of the card before.
    """
    manifest = read_manifest(directory)
    path = directory / CARD_FILE
    figures = [name for name in FIGURES if (directory / name).exists()]
    text = render_card(directory.resolve().name, manifest, figures, license_id or license_of(path))
    write_atomically(path, text.encode())
    return path


def render_card(name: str, manifest: Manifest, figures: Sequence[str] = (), license_id: str | None = None) -> str:
    """Return the README: the model, its training, the measured errors; of an imported graph, what a step is.

    It begins with the front matter that the Hugging Face Hub reads.
    """
    body = _render_graph(name, manifest) if manifest.kind == GRAPH_KIND else _render_model(name, manifest, figures)
    return f"{front_matter(name, manifest, license_id)}\n{body}"


def _render_model(name: str, manifest: Manifest, figures: Sequence[str]) -> str:
    return f"""# {name}

{KINDS.get(manifest.kind, f"A model of kind `{manifest.kind}`")}, {_origin(manifest)}.

| | |
|---|---|
{_rows(_facts(manifest))}

## Training

    {manifest.training["command"]}

{_training(manifest.training)}
{_data(manifest.task["name"])}## Measured errors

{_errors(manifest.evaluation)}
## Figures

{_figures(figures)}"""


def _render_graph(name: str, manifest: Manifest) -> str:
    graph, verified = manifest.config["graph"], manifest.training["verified"]
    about, step = graph["about"], graph["step"]
    facts = {
        "inputs of a step": _tensors(graph["inputs"]),
        "outputs": _tensors(graph["outputs"]),
        "traces": _tensors(graph["trace"]),
        "state": ", ".join(f"{leaf} {shape}" for leaf, shape in manifest.state.items()),
        **{key.replace("_", " "): value for key, value in (step | about).items() if key != "description"},
        "form": graph["form"],
        "parameters": f"{manifest.parameters:,}",
    }
    equal = "equal to the bit" if verified["difference"] == 0 else f"equal but for {verified['difference']:.2g}"
    return f"""# {name}

{about.get("description", "A graph of one recurrent step")}, an ONNX graph that was imported.

| | |
|---|---|
{_rows({key: value for key, value in facts.items() if value})}

Imported by:

    {manifest.training["command"]}

Beside the file run alone, row by row, it was {equal}, over {verified["steps"]} steps of random inputs and of zeros with
{", ".join(map(str, verified["rows"]))} rows.
"""


def _tensors(parts: list[dict[str, Any]]) -> str:
    """Return parts of a step in words: their names, shapes and ranges."""
    return ", ".join(
        f"{part['name']} {part['shape']}"
        + (f" from {part['range'][0]:g} to {part['range'][1]:g}" if part["range"] else "")
        for part in parts
    )


def _origin(manifest: Manifest) -> str:
    """Return the origin of the weights and the task, if there is one."""
    original = manifest.training.get("original")
    what = f"with weights of {original}" if original else "trained"
    if manifest.task["name"] == NO_TASK:
        return what
    options = options_text({key: value for key, value in manifest.task.items() if key not in HIDDEN})
    return f"{what}{', for' if original else ' on'} the task `{manifest.task['name']}` ({options})"


def _training(training: dict[str, Any]) -> str:
    if "original" in training:
        return f"Not trained here: the weights are those of a file of {training['original']}.\n"
    ended = "stopped at its target" if training["reached_target"] else "ran to its last update"
    skipped = training["skipped_updates"]
    lines = [
        f"Seed {training['seed']}, {training['updates']:,} updates, {training['sequences']:,} sequences; "
        f"the run {ended}." + (f" {skipped} updates were left out, not finite." if skipped else "")
    ]
    if training.get("initial_weights"):
        lines.append(f"It began from the weights whose file has the SHA-256 {training['initial_weights']}.")
    if training.get("rescheduled"):
        after = ", ".join(f"{updates:,}" for updates in training["rescheduled"])
        lines.append(f"It was trained on after {after} updates, and its learning rate scheduled anew.")
    seeds = training.get("seeds")
    if seeds:
        lines += [
            "",
            "| seed | sequences | converged after | mean errors |",
            "|---|---|---|---|",
            *(_seed_row(seed, record, seed == str(training["seed"])) for seed, record in seeds.items()),
            "",
            "Converged: the first validation at the preset's target. Mean errors: the geometric mean over the "
            "measurements below, on other sequences, never those of a test set; the seed with the least was chosen.",
        ]
    return "\n".join([*lines, ""])


def _data(task: str) -> str:
    """Return the section about the task's data, "" where Engram generates them."""
    data = TASKS[task].data if task in TASKS else ""
    return f"## Data\n\n{data}\n\n" if data else ""


def _seed_row(seed: str, record: dict[str, Any], chosen: bool) -> str:
    name, mean = f"{seed} (this one)" if chosen else seed, record["mean_errors"]
    sequences, converged = record["sequences"], record["converged_after"]
    cells = [
        name,
        "-" if sequences is None else f"{sequences:,}",
        "not" if converged is None else f"{converged:,}",
        "not finite" if mean is None else f"{mean:.4g}",
    ]
    return f"| {' | '.join(cells)} |"


def _figures(figures: Sequence[str]) -> str:
    if not figures:
        return "Not drawn yet.\n"
    return "\n\n".join(f"{FIGURES[name]}:\n\n![{FIGURES[name]}]({name})" for name in figures) + "\n"


def _facts(manifest: Manifest) -> dict[str, Any]:
    config = manifest.config
    facts = {"input and output": f"{manifest.input_size} and {manifest.output_size} values a step"}
    if config.get("memory_size"):
        words = f" of {config['word_size']}" if "word_size" in config else ""
        facts["memory"] = f"{config['memory_size']} slots{words}"
    if {"read_heads", "write_heads"} <= set(config):
        facts["heads"] = f"{config['read_heads']} read, {config['write_heads']} write"
    if config.get("programs", 1) > 1:
        facts["stored programs"] = f"{config['programs']}, keys of {config['program_key_size']}"
    if config.get("controller"):
        facts["controller"] = _cell(config["controller"])
    return facts | {"parameters": f"{manifest.parameters:,}"}


def _cell(config: dict[str, Any]) -> str:
    """Return a cell in words, such as "lstm, 100 units"; of a stack its cells, from the bottom."""
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
        "Means over fresh sequences.",
        "",
        "| what | memory slots | sequences | errors per sequence | of | sequences with an error | cost in bits | goal "
        "| published |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_error_row(row) for row in evaluation),
    ]
    commands = dict.fromkeys(row["command"] for row in evaluation if "command" in row)
    return "\n".join([*lines, "", "Printed by:", "", *(f"    {command}" for command in commands), ""])


def _error_row(row: dict[str, Any]) -> str:
    cells = [
        options_text(row["options"]),
        row["memory_size"] or "-",
        f"{row['sequences']:,}",
        f"{errors_text(row)} {row['unit']}",
        of_text(row),
        f"{row['wrong_sequences']:,}",
        cost_text(row),
        goal_text(row) or "-",
        row.get("published") or "-",
    ]
    return f"| {' | '.join(map(str, cells))} |"
