"""engram presets: the presets that come with Engram, and what their checkpoints reached."""

import json

from tests.app.harness import CHECKPOINTS
from tests.engram.running import complaint, done
from training.preset import load_preset, preset_names


def test_presets_are_listed_with_what_their_checkpoints_reached(capsys):
    heading, *lines = done(capsys, "presets", "--checkpoints", CHECKPOINTS).splitlines()
    assert sorted(line.split()[0] for line in lines) == preset_names()
    [copy] = [line for line in lines if line.startswith("dnc-copy ")]
    assert copy.split()[1:4] == ["dnc", "copy", "32"]
    assert copy.endswith("0 wrong bits, 4 measured")
    assert heading.startswith("preset ")


def test_presets_are_described_for_programs(capsys):
    found = {preset["name"]: preset for preset in json.loads(done(capsys, "presets", "--json"))}
    assert sorted(found) == preset_names()
    assert all(preset["about"].endswith(".") for preset in found.values())
    loaded = load_preset("gru-dyck")
    assert (found["gru-dyck"]["model"]["kind"], found["gru-dyck"]["task"]["name"]) == (loaded.kind, loaded.task.name)


def test_preset_is_shown_as_its_file_says(capsys, tmp_path):
    printed = done(capsys, "presets", "lstm-copy", "--checkpoints", tmp_path)
    assert '[task]\nname = "copy"\n' in printed
    assert printed.endswith(f"\n# {tmp_path / 'lstm-copy'}: not measured\n")


def test_unknown_preset_names_the_nearest(capsys):
    assert complaint(capsys, "presets", "lstm-cpoy") == (
        "engram: no preset 'lstm-cpoy': engram presets lists them. Did you mean lstm-copy?"
    )
