"""engram zoo: it publishes the best of several seeds, and nothing over other files."""

import re
import shlex

import pytest
import torch

from engram import main as cli
from models.manifest import MANIFEST_FILE, ONNX_FILE, WEIGHTS_FILE, read_manifest
from tests.engram.running import complaint, done
from tests.training import tiny
from training.checkpoint import save_checkpoint


@pytest.mark.slow
def test_zoo_counts_a_seed_that_diverges_and_publishes_another(tmp_path, capsys):
    preset, runs, out = tiny.write_toml(tmp_path / "tiny.toml", target_errors=100), tmp_path / "runs", tmp_path / "out"
    spoilt = tiny.checkpoint(runs / "seed-2", updates=4, seed=2, target_errors=100)
    torch.nn.init.constant_(spoilt.model.output.bias, torch.nan)
    save_checkpoint(runs / "seed-2", spoilt, "engram train")
    printed = done(capsys, "zoo", preset, "--seeds", 1, 2, "--runs", runs, "--out", out, "--sequences", 5)
    assert re.search(r"\n   2 +- +-  diverged: its numbers .*, as printed above\n1 of 2 seeds converged: ", printed)
    assert read_manifest(out).training["seed"] == 1
    assert read_manifest(out).training["seeds"]["2"]["converged_after"] is None


@pytest.mark.slow
def test_zoo_publishes_no_run_of_other_settings(tmp_path, capsys):
    preset, runs, out = tiny.write_toml(tmp_path / "tiny.toml"), tmp_path / "runs", tmp_path / "out"
    tiny.checkpoint(runs / "seed-1", updates=30, learning_rate=0.5)
    assert cli.main(["zoo", str(preset), "--seeds", "1", "--runs", str(runs), "--out", str(out)]) == 1
    printed, complaints = capsys.readouterr()
    assert printed.splitlines()[-1].split(maxsplit=3) == ["1", "-", "-", "failed, for the reason printed above"]
    assert complaints.endswith(f"engram: {runs / 'seed-1'} has not finished: nothing is chosen before every seed has\n")
    assert not out.exists()


def test_zoo_refuses_a_directory_of_other_files_before_training(tmp_path, capsys):
    preset, out = tiny.write_toml(tmp_path / "tiny.toml"), tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").touch()
    message = complaint(capsys, "zoo", preset, "--runs", tmp_path / "runs", "--out", out)
    assert message == f"engram: {out} holds notes.txt, which is no part of a published checkpoint: give another --out"
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_zoo_makes_a_checkpoint_to_serve_of_a_preset(tmp_path, capsys):
    preset = tiny.write_toml(tmp_path / "tiny.toml", evaluation=[{"length": 2, "target": 0}])
    out, runs = tmp_path / "zoo", tmp_path / "runs"
    words = ["zoo", preset, "--seeds", 1, 2, "--jobs", 2, "--out", out, "--runs", runs, "--sequences", 20]
    printed = done(capsys, *words)
    files = {MANIFEST_FILE, WEIGHTS_FILE, ONNX_FILE, "README.md", "learning.json", "learning.png", "weightings.png"}
    assert files <= {path.name for path in out.iterdir()}
    manifest = read_manifest(out)
    assert manifest.training["command"] == shlex.join(["engram", *map(str, words)])
    assert re.search(r"^length 2 .* 0: missed by [\d.]+$", printed, re.MULTILINE)
    message, following = printed.splitlines()[-2:]
    assert all(f" {name}" in message for name in files)
    assert following == f"Next: engram serve --checkpoints {tmp_path}"
