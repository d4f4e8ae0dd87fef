"""The README of a checkpoint agrees with its manifest."""

import dataclasses
import re

import pytest

from models.manifest import read_manifest
from tests.training import tiny
from training.card import FIGURES, KINDS, render_card, write_card
from training.checkpoint import save_evaluation
from training.plots import plot_all
from training.run import train as run
from training.tasks import Babi

COMMAND = "engram evaluate there --sequences 200"


def row(length, memory_size, errors, wrong, command=COMMAND, **more):
    return {
        "options": {"length": length},
        "memory_size": memory_size,
        "sequences": 2000,
        "errors": errors,
        "asked": 2.0 * length,
        "wrong_sequences": wrong,
        "optimum": None,
        "unit": "wrong bits",
        "target": None,
        "published": None,
        "command": command,
    } | more


def card_of(directory, model, rows=(), **training):
    """Return the card of a small checkpoint, with these measured errors."""
    tiny.checkpoint(directory, model, updates=3, **training)
    save_evaluation(directory, read_manifest(directory), list(rows))
    return render_card("tiny-copy", read_manifest(directory))


@pytest.mark.parametrize("model", list(tiny.MODELS))
def test_card_describes_the_model_and_its_training(tmp_path, model):
    card = card_of(tmp_path, model, seed=17)
    manifest = read_manifest(tmp_path)
    assert f"\n---\n\n# tiny-copy\n\n{KINDS[manifest.kind]}, " in card
    assert "trained on the task `copy` (bits 2, length 1 to 3, flags start-and-end)" in card
    assert "\n    engram train tiny.toml --out there\n" in card
    assert "Seed 17, 3 updates, 12 sequences; the run ran to its last update." in card
    assert f"| parameters | {manifest.parameters:,} |" in card
    assert "| input and output | 4 and 2 values a step |" in card


def test_card_describes_stored_programs(tmp_path, monkeypatch):
    monkeypatch.setitem(tiny.MODELS, "nutm", {**tiny.MODELS["ntm"], "programs": 3, "program_key_size": 5})
    assert "| stored programs | 3, keys of 5 |" in card_of(tmp_path, "nutm")


def test_card_describes_memory_and_heads(tmp_path):
    card = card_of(tmp_path, "dnc-2-read-3-write-heads")
    assert "| memory | 8 slots of 4 |" in card
    assert "| heads | 2 read, 3 write |" in card
    assert "stored programs" not in card
    assert "| controller | lstm, 8 units |" in card


def test_card_of_a_model_without_a_memory_speaks_of_none(tmp_path):
    card = card_of(tmp_path, "rnn", [row(2, None, 0.5, 80)])
    assert "| memory |" not in card
    assert "| heads |" not in card
    assert "| length 2 | - | 2,000 | 0.5 wrong bits | 4 | 80 | - | - | - |" in card


def test_card_without_a_controller_has_no_row_of_it(tmp_path):
    tiny.checkpoint(tmp_path, "rnn")
    manifest = read_manifest(tmp_path)
    config = {name: value for name, value in manifest.config.items() if name != "controller"}
    card = render_card("tiny-copy", dataclasses.replace(manifest, config=config))
    assert "controller" not in card
    assert f"| parameters | {manifest.parameters:,} |" in card


def test_card_says_where_a_run_stopped_at_its_target(tmp_path):
    assert "the run stopped at its target." in card_of(tmp_path, "rnn", target_errors=1e9, patience=1, validate_every=1)


def test_card_has_a_row_for_every_measurement(tmp_path):
    card = card_of(tmp_path, "dnc", [row(2, 8, 0.0, 0), row(30, 8, 12.3456789, 1990), row(2, 64, 0.015, 3)])
    table = [line for line in card.splitlines() if line.endswith(" |") and " 2,000 " in line]
    assert table == [
        "| length 2 | 8 | 2,000 | 0 wrong bits | 4 | 0 | - | - | - |",
        "| length 30 | 8 | 2,000 | 12.35 wrong bits | 60 | 1,990 | - | - | - |",
        "| length 2 | 64 | 2,000 | 0.015 wrong bits | 4 | 3 | - | - | - |",
    ]


def test_card_compares_errors_with_goals_and_published_figures(tmp_path):
    rows = [row(2, 8, 0.5, 9, target=0.5, published="0.1 (they)"), row(3, 8, 0.75, 9, target=0.5)]
    card = card_of(tmp_path, "dnc", rows)
    assert "| 9 | - | 0.5: reached | 0.1 (they) |" in card
    assert "| 9 | - | 0.5: missed by 0.25 | - |" in card


def test_card_compares_unavoidable_errors_with_the_optimum(tmp_path):
    card = card_of(
        tmp_path, "rnn", [row(2, None, 131.5, 2000, optimum=130.25, unit="bits of cost", target=1.0, cost=131.5)]
    )
    assert "| 131.5 bits of cost | optimum 130.2 | 2,000 | 131.5 | 1: missed by 0.25 | - |" in card


def test_card_of_the_best_seed_lists_all_seeds(tmp_path):
    tiny.checkpoint(tmp_path, updates=3, seed=2)
    manifest = read_manifest(tmp_path)
    seeds = {
        "1": {"sequences": 12000, "converged_after": None, "mean_errors": 1.25},
        "2": {"sequences": 9000, "converged_after": 8000, "mean_errors": 0.001},
    }
    recorded = dataclasses.replace(manifest, training=manifest.training | {"seeds": seeds})
    card = render_card("tiny-copy", recorded)
    assert "\n| 1 | 12,000 | not | 1.25 |\n| 2 (this one) | 9,000 | 8,000 | 0.001 |\n" in card
    assert "the seed with the least was chosen" in card
    assert "| seed |" not in render_card("tiny-copy", manifest)


def test_card_counts_updates_that_were_left_out(tmp_path):
    tiny.checkpoint(tmp_path, updates=3)
    manifest = read_manifest(tmp_path)
    skipped = dataclasses.replace(manifest, training=manifest.training | {"skipped_updates": 7})
    assert "7 updates were left out, not finite." in render_card("tiny-copy", skipped)
    assert "left out" not in render_card("tiny-copy", manifest)


def test_card_leaves_out_the_words_of_a_task(tmp_path):
    tiny.checkpoint(tmp_path)
    manifest = read_manifest(tmp_path)
    task = {"name": "babi", "tasks": [1, 2], "vocabulary": ["-", "garden"]}
    card = render_card("tiny-babi", dataclasses.replace(manifest, task=task))
    assert "the task `babi`" in card
    assert "garden" not in card


def test_card_names_the_source_of_the_data(tmp_path):
    tiny.checkpoint(tmp_path)
    manifest = read_manifest(tmp_path)
    card = render_card("tiny-babi", dataclasses.replace(manifest, task={"name": "babi", "tasks": [1]}))
    assert f"\n\n## Data\n\n{Babi.data}\n\n## Measured errors\n" in card
    assert "Attribution 3.0" in Babi.data
    assert "## Data" not in render_card("tiny-copy", manifest)


def test_card_names_each_command_of_its_measurements_once(tmp_path):
    other = "engram evaluate there --memory-size 64"
    card = card_of(tmp_path, "dnc", [row(1, 8, 0.0, 0), row(2, 8, 0.0, 0), row(2, 64, 0.0, 0, other)])
    assert card.count(COMMAND) == 1
    assert card.index(f"\n    {COMMAND}\n") < card.index(f"\n    {other}\n")


def test_card_without_measurements_says_so(tmp_path):
    assert "## Measured errors\n\nNot measured yet.\n" in card_of(tmp_path, "rnn")


def test_write_card_lists_the_existing_figures(tmp_path):
    directory = tmp_path / "tiny-copy"
    tiny.checkpoint(directory, "ntm")
    (directory / "weightings.png").touch()
    (directory / "learning.png").touch()
    path = write_card(directory)
    assert path == directory / "README.md"
    shown = re.findall(r"^!\[(.*)\]\((.*)\)$", path.read_text(), re.MULTILINE)
    assert shown == [(FIGURES[name], name) for name in ("learning.png", "weightings.png")]
    assert path.read_text() == render_card("tiny-copy", read_manifest(directory), ["learning.png", "weightings.png"])


def test_card_without_figures_says_so(tmp_path):
    assert card_of(tmp_path, "rnn").endswith("## Figures\n\nNot drawn yet.\n")


@pytest.mark.slow
def test_every_figure_that_is_drawn_has_its_words(tmp_path):
    run(tiny.preset("dnc", evaluation=[]), tmp_path, "train", device="cpu", resuming=False, save_every=500)
    save_evaluation(tmp_path, read_manifest(tmp_path), [row(2, 8, 0.0, 0), row(4, 8, 0.5, 9)])
    assert {path.name for path in plot_all(tmp_path, tmp_path)} == set(FIGURES)


def test_write_card_again_writes_the_same_file(tmp_path):
    tiny.checkpoint(tmp_path, "rnn")
    before = write_card(tmp_path, "cc-by-4.0").read_bytes()
    assert b"\nlicense: cc-by-4.0\n" in before
    assert write_card(tmp_path).read_bytes() == before
