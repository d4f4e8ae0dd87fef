"""The list of the checkpoints of a directory, from their manifests alone."""

import dataclasses
import subprocess
import sys

import pytest

from models.config import ConfigError
from models.manifest import MANIFEST_FILE, WEIGHTS_FILE, read_manifest
from tests.training import tiny
from training.checkpoint import save_evaluation, write_manifest
from training.listing import cells, describe


@pytest.fixture
def checkpoints(tmp_path):
    for name, model in (("first", "dnc"), ("second", "rnn")):
        tiny.checkpoint(tmp_path / name, model)
    rows = [{"options": {"length": n}, "memory_size": 8, "errors": n / 2, "unit": "wrong bits"} for n in (1, 5)]
    save_evaluation(tmp_path / "first", read_manifest(tmp_path / "first"), rows)
    (tmp_path / "notes").mkdir()
    return tmp_path


def test_checkpoints_are_described_by_their_manifests(checkpoints):
    first, second = describe(checkpoints)
    assert (first["name"], first["kind"], first["memory_size"], first["exported"]) == ("first", "dnc", 8, False)
    assert (first["input_size"], first["output_size"], first["task"]["name"]) == (4, 2, "copy")
    assert [row["errors"] for row in first["evaluation"]] == [0.5, 2.5]
    assert (second["kind"], second["memory_size"], second["evaluation"]) == ("rnn", None, [])


def test_checkpoint_without_a_controller_is_listed(checkpoints):
    manifest = read_manifest(checkpoints / "second")
    write_manifest(checkpoints / "second", dataclasses.replace(manifest, config={"output_activation": "identity"}))
    _, second = describe(checkpoints)
    assert (second["kind"], second["controller"]) == ("rnn", None)


def test_cells_are_sizes_task_and_range_of_errors(checkpoints):
    first, second = map(cells, describe(checkpoints))
    assert first[-2:] == ["copy", "0.5 to 2.5 wrong bits, 2 measured"]
    assert (second[:5], second[-1]) == (["second", "rnn", "4", "2", "-"], "not measured")


def test_listing_and_progress_need_no_torch():
    program = "import sys, training.listing, training.progress; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=tiny.ROOT).returncode == 0


@pytest.mark.parametrize("name", [MANIFEST_FILE, WEIGHTS_FILE])
def test_damaged_checkpoint_is_named_beside_the_others(checkpoints, name):
    (checkpoints / "first" / name).write_bytes(b"")
    first, second = describe(checkpoints)
    assert f"first/{name}: " in first["error"]
    assert second["kind"] == "rnn"


def test_checkpoint_itself_is_refused_with_its_parent_directory(checkpoints):
    with pytest.raises(ConfigError, match=f"it is one itself: give the directory that it is in, {checkpoints}$"):
        list(describe(checkpoints / "first"))
