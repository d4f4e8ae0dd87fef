"""The README of a checkpoint says what its manifest says."""

import matplotlib.image
import pytest

from models.manifest import read_manifest
from tests.training import tiny
from training.card import FIGURE, KINDS, render_card, write_card
from training.checkpoint import save_evaluation

COMMAND = "engram evaluate there --sequences 200"


def row(length, memory_size, errors, wrong, command=COMMAND):
    return {
        "length": length,
        "sequences": 200,
        "errors_per_sequence": errors,
        "wrong_sequences": wrong,
        "bits_per_sequence": 2 * length,
        "memory_size": memory_size,
        "command": command,
    }


def card_of(directory, model, rows=(), **training):
    """Return the card of a small checkpoint, with these measured errors."""
    tiny.checkpoint(directory, model, updates=3, **training)
    save_evaluation(directory, read_manifest(directory), list(rows))
    return render_card("tiny-copy", read_manifest(directory))


@pytest.mark.parametrize("model", list(tiny.MODELS))
def test_card_says_what_the_model_is_and_how_it_was_trained(tmp_path, model):
    card = card_of(tmp_path, model, seed=17)
    manifest = read_manifest(tmp_path)
    assert card.startswith(f"# tiny-copy\n\n{KINDS[manifest.kind]}, ")
    assert "trained on the task `copy` (bits 2, min_length 1, max_length 3)" in card
    assert "\n    engram train tiny.toml --out there\n" in card
    assert "Seed 17, 3 updates, 12 sequences; the run ran to its last update." in card
    assert f"| parameters | {manifest.parameters:,} |" in card
    assert "| input and output | 4 and 2 values a step |" in card


def test_card_says_what_memory_and_heads_there_are(tmp_path):
    card = card_of(tmp_path, "dnc-2-read-3-write-heads")
    assert "| memory | 8 slots of 4 |" in card
    assert "| heads | 2 read, 3 write |" in card
    assert "| controller | lstm, 8 units |" in card


def test_card_of_a_model_without_a_memory_speaks_of_none(tmp_path):
    card = card_of(tmp_path, "rnn", [row(2, None, 0.5, 80)])
    assert "| memory |" not in card
    assert "| heads |" not in card
    assert "| 2 | - | 200 | 0.5 | 4 | 80 |" in card


def test_card_says_where_a_run_stopped_at_its_target(tmp_path):
    assert "the run stopped at its target." in card_of(tmp_path, "rnn", target_errors=1e9, patience=1, validate_every=1)


def test_card_has_a_row_for_every_measurement(tmp_path):
    card = card_of(tmp_path, "dnc", [row(2, 8, 0.0, 0), row(30, 8, 12.3456789, 199), row(2, 64, 0.015, 3)])
    table = [line for line in card.splitlines() if line.endswith(" |") and " 200 " in line]
    assert table == [
        "| 2 | 8 | 200 | 0 | 4 | 0 |",
        "| 30 | 8 | 200 | 12.35 | 60 | 199 |",
        "| 2 | 64 | 200 | 0.015 | 4 | 3 |",
    ]


def test_card_names_each_command_of_its_measurements_once(tmp_path):
    other = "engram evaluate there --memory-size 64"
    card = card_of(tmp_path, "dnc", [row(1, 8, 0.0, 0), row(2, 8, 0.0, 0), row(2, 64, 0.0, 0, other)])
    assert card.count(COMMAND) == 1
    assert card.index(f"\n    {COMMAND}\n") < card.index(f"\n    {other}\n")


def test_card_without_measurements_says_so(tmp_path):
    assert "## Measured errors\n\nNot measured yet.\n" in card_of(tmp_path, "rnn")


def test_write_card_writes_the_readme_and_its_figure(tmp_path):
    directory = tmp_path / "tiny-copy"
    tiny.checkpoint(directory, "ntm")
    path = write_card(directory)
    assert path == directory / "README.md"
    assert path.read_text() == render_card("tiny-copy", read_manifest(directory))
    assert f"]({FIGURE})" in path.read_text()
    assert matplotlib.image.imread(directory / FIGURE).shape[1] == 990


def test_write_card_again_writes_the_same_files(tmp_path):
    tiny.checkpoint(tmp_path, "rnn")
    write_card(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write_card(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
