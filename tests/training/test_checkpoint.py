"""Checkpoints on disk: their contents, crashes at any moment, and damage."""

import copy
import errno
import functools
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from models.artefact import load
from models.contract import unroll
from models.manifest import MANIFEST_FILE, NEXT_WEIGHTS_FILE, WEIGHTS_FILE, ManifestError, read_manifest, sha256
from models.state import flatten
from tests.training import tiny
from training import files
from training.checkpoint import resume, save_checkpoint, save_evaluation
from training.files import TRAINING_FILE, CheckpointError, replacing, write_atomically
from training.trainer import Trainer

SYSTEM_CALLS = ("replace", "unlink", "fsync")
"""The functions of `os` by which a save changes the disk."""


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def contents(directory):
    """Return the files by name, except those of unfinished writes."""
    return {path.name: path.read_bytes() for path in directory.iterdir() if not path.name.startswith(".")}


def same_weights(model, other):
    expected, actual = other.state_dict(), model.state_dict()
    return actual.keys() == expected.keys() and all(torch.equal(actual[name], expected[name]) for name in expected)


def test_same_weights_are_the_same_bytes(tmp_path):
    trainer = tiny.checkpoint(tmp_path / "first", "ntm")
    files = set()
    for number in range(8):
        save_checkpoint(tmp_path / str(number), trainer, "engram train")
        files.add((tmp_path / str(number) / WEIGHTS_FILE).read_bytes())
    assert len(files) == 1
    with safe_open(tmp_path / "0" / WEIGHTS_FILE, "pt") as file:
        metadata = file.metadata()
    manifest = read_manifest(tmp_path / "0")
    assert json.loads(metadata.pop("config")) == manifest.config
    assert metadata == {"format": "pt", "library": "engram", "kind": "ntm", "task": "copy"}


def photographed(monkeypatch, directory, album, save):
    """Call `save` and return copies of `directory` in order, as a crash would leave it before and after each call."""
    pictures = []

    def photograph():
        pictures.append(Path(shutil.copytree(directory, album / f"{len(pictures):02}")))

    def watched(function):
        def watched_function(*arguments, **options):
            photograph()
            result = function(*arguments, **options)
            photograph()
            return result

        return watched_function

    with monkeypatch.context() as patch:
        for name in SYSTEM_CALLS:
            patch.setattr(os, name, watched(getattr(os, name)))
        save()
    return pictures


@pytest.fixture
def second_save(tmp_path, monkeypatch):
    """The models of two saves, the trainer, and the directory after a crash at each moment of the second save."""
    directory = tmp_path / "checkpoint"
    trainer = tiny.checkpoint(directory)
    old = copy.deepcopy(trainer.model)
    trainer.update()
    pictures = photographed(monkeypatch, directory, tmp_path, lambda: save_checkpoint(directory, trainer, "again"))
    return old, trainer, pictures


# Contents


def test_save_writes_three_files_and_nothing_else(tmp_path):
    tiny.checkpoint(tmp_path / "new" / "deep", "dnc")
    assert names(tmp_path / "new" / "deep") == [MANIFEST_FILE, WEIGHTS_FILE, TRAINING_FILE]


def test_files_can_be_read_by_others(tmp_path):
    tiny.checkpoint(tmp_path)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o644}


def test_manifest_describes_the_model_and_the_run(tmp_path):
    trainer = tiny.checkpoint(tmp_path, "dnc-2-read-3-write-heads", updates=3, seed=5)
    manifest = read_manifest(tmp_path)
    assert manifest.kind == "dnc"
    assert manifest.config["write_heads"] == 3
    assert manifest.task == {"name": "copy", "bits": 2, "length": [1, 3], "flags": "start-and-end"}
    assert (manifest.input_size, manifest.output_size) == (4, 2)
    assert manifest.parameters == sum(tensor.numel() for tensor in load_file(tmp_path / WEIGHTS_FILE).values())
    assert manifest.weights_sha256 == sha256(tmp_path / WEIGHTS_FILE)
    assert manifest.training == {
        "command": "engram train tiny.toml --out there",
        "preset": "tiny",
        "seed": 5,
        "updates": 3,
        "sequences": 12,
        "skipped_updates": 0,
        "reached_target": False,
        "finished": False,
        "converged_after": None,
    }
    assert manifest.evaluation == []
    controller = manifest.config["controller"]
    assert (controller["kind"], controller["hidden_size"], controller["forget_bias"]) == ("lstm", 8, 1.0)
    assert trainer.model.input_size == manifest.config["input_size"]


@pytest.mark.parametrize("model", list(tiny.MODELS))
def test_manifest_has_the_shapes_of_state_and_traces(tmp_path, model):
    trained = tiny.checkpoint(tmp_path, model).model
    manifest = read_manifest(tmp_path)
    _, state, trace = trained.step(torch.zeros(3, 4), trained.initial_state(3))
    for schema, tensors in [(manifest.state, flatten(state)), (manifest.trace, trace)]:
        assert list(schema.items()) == [(name, list(tensor.shape[1:])) for name, tensor in tensors.items()]


@pytest.mark.parametrize("model", list(tiny.MODELS))
def test_loaded_model_steps_as_the_saved_one(tmp_path, model):
    saved = tiny.random_checkpoint(tmp_path, model).model
    loaded, manifest = load(tmp_path)
    assert manifest == read_manifest(tmp_path)
    inputs = torch.randn(7, 3, 4)
    expected, _, _ = unroll(saved, inputs, saved.initial_state(3))
    actual, _, _ = unroll(loaded, inputs, loaded.initial_state(3))
    assert torch.equal(actual, expected)


def test_manifest_says_how_a_run_ended(tmp_path):
    tiny.checkpoint(tmp_path / "short", updates=29)
    tiny.checkpoint(tmp_path / "whole", updates=30)
    options = {"target_errors": 1e9, "validate_every": 2, "patience": 3}
    tiny.checkpoint(tmp_path / "good", updates=6, **options)
    ends = [read_manifest(tmp_path / name).training for name in ("short", "whole", "good")]
    assert [(end["finished"], end["reached_target"], end["converged_after"]) for end in ends] == [
        (False, False, None),
        (True, False, None),
        (True, True, 8),
    ]


def test_weights_hold_only_the_weights(tmp_path):
    trainer = tiny.checkpoint(tmp_path, updates=2)
    assert load_file(tmp_path / WEIGHTS_FILE).keys() == trainer.model.state_dict().keys()


@pytest.mark.parametrize("model", ["dnc", "ntm"])
def test_model_loaded_runs_with_a_memory_of_another_size(tmp_path, model):
    tiny.random_checkpoint(tmp_path, model)
    loaded, manifest = load(tmp_path)
    assert manifest.config["memory_size"] == 8
    outputs, state, _ = unroll(loaded, torch.randn(5, 2, 4), loaded.initial_state(2, memory_size=21))
    assert state.memory.shape == (2, 21, 4)
    assert outputs.isfinite().all()


# Whole directories


def fill(directory, text):
    """Put a file and a directory into a directory."""
    (directory / "inside").mkdir(parents=True)
    (directory / "inside" / "file").write_text(text)
    (directory / text).touch()


def filled(directory):
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


@pytest.mark.parametrize("before", ["nothing", "old"])
def test_directory_is_replaced_with_all_that_was_in_it(tmp_path, before):
    if before == "old":
        fill(tmp_path / "name", "old")
    with replacing(tmp_path / "name") as fresh:
        assert (fresh.name, names(fresh)) == ("name", [])
        fill(fresh, "new")
        assert (tmp_path / "name").exists() is (before == "old")
    assert filled(tmp_path) == ["name/inside/file", "name/new"]
    assert names(tmp_path) == ["name"]


def test_replacement_that_fails_changes_nothing(tmp_path):
    fill(tmp_path / "name", "old")
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "name") as fresh:
        fill(fresh, "no/where")
    assert filled(tmp_path) == ["name/inside/file", "name/old"]
    assert names(tmp_path) == ["name"]


@pytest.mark.skipif(sys.platform != "linux", reason="renameat2 is a call of Linux")
def test_directory_is_replaced_in_one_step(tmp_path, monkeypatch):
    fill(tmp_path / "name", "old")
    monkeypatch.setattr(os, "replace", None)
    with replacing(tmp_path / "name") as fresh:
        fill(fresh, "new")
    assert filled(tmp_path) == ["name/inside/file", "name/new"]
    assert names(tmp_path) == ["name"]


def test_second_rename_that_fails_brings_the_old_directory_back(tmp_path, monkeypatch):
    fill(tmp_path / "name", "old")
    monkeypatch.setattr(files, "_exchange", lambda *_: False)
    rename, due = os.replace, iter([True, False, True])
    monkeypatch.setattr(os, "replace", lambda *paths: rename(*paths) if next(due) else os.stat(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "name") as fresh:
        fill(fresh, "new")
    assert filled(tmp_path) == ["name/inside/file", "name/old"]


@pytest.mark.parametrize(
    "moved", [[], [("name", ".previous/name")], [("name", ".previous/name"), (".next/name", "name")]]
)
def test_replacement_killed_at_any_rename_is_repaired_next_time(tmp_path, moved):
    fill(tmp_path / "name", "old")
    fill(tmp_path / ".next" / "name", "new")
    (tmp_path / ".previous").mkdir()
    for source, target in moved:
        (tmp_path / source).rename(tmp_path / target)
    whole = "new" if len(moved) == 2 else "old"
    with replacing(tmp_path / "name") as fresh:
        assert filled(tmp_path) == ["name/inside/file", f"name/{whole}"]
        fill(fresh, "newest")
    assert filled(tmp_path) == ["name/inside/file", "name/newest"]


def test_replacements_side_by_side_leave_each_other_alone(tmp_path):
    with replacing(tmp_path / "name") as fresh:
        fill(fresh, "new")
        with replacing(tmp_path / "other") as other:
            fill(other, "other")
    assert filled(tmp_path) == ["name/inside/file", "name/new", "other/inside/file", "other/other"]


def test_second_replacement_under_way_of_a_directory_is_refused(tmp_path):
    with replacing(tmp_path / "name") as fresh:
        fill(fresh, "new")
        with pytest.raises(CheckpointError, match="name is being replaced by another"), replacing(tmp_path / "name"):
            raise AssertionError("two write one directory")
    assert filled(tmp_path) == ["name/inside/file", "name/new"]
    assert names(tmp_path) == ["name"]


# Crashes


def test_crash_during_a_save_leaves_old_or_new_model(second_save):
    old, trainer, pictures = second_save
    found = []
    for picture in pictures:
        model, _ = load(picture)
        found.append("new" if same_weights(model, trainer.model) else "old" if same_weights(model, old) else "neither")
    assert found == sorted(found, reverse=True)
    assert set(found) == {"old", "new"}


def test_crash_during_a_save_leaves_a_run_to_resume(second_save):
    _, _, pictures = second_save
    updates = [resume(picture).progress.update for picture in pictures]
    assert updates == sorted(updates)
    assert set(updates) == {0, 1}


def test_save_after_a_crash_at_any_moment_repairs_the_checkpoint(second_save):
    _, trainer, pictures = second_save
    assert len(pictures) > 16
    for picture in pictures:
        trainer.update()
        save_checkpoint(picture, trainer, "repair")
        assert same_weights(load(picture)[0], trainer.model)
        assert sha256(picture / WEIGHTS_FILE) == read_manifest(picture).weights_sha256
        assert not (picture / NEXT_WEIGHTS_FILE).exists()


def test_second_crash_during_the_repair_leaves_a_checkpoint(second_save, monkeypatch, tmp_path):
    _, trainer, pictures = second_save
    trainer.update()
    different = {frozenset(contents(picture).items()): picture for picture in pictures}
    assert len(different) >= 5
    for number, picture in enumerate(different.values()):
        album = tmp_path / f"repair {number}"
        save = functools.partial(save_checkpoint, picture, trainer, "repair")
        for moment in photographed(monkeypatch, picture, album, save):
            load(moment)
            resume(moment)


def test_first_save_cut_off_is_repaired_by_the_next(tmp_path, monkeypatch):
    directory = tmp_path / "checkpoint"
    directory.mkdir()
    trainer = Trainer(tiny.preset())
    save = lambda at=directory: save_checkpoint(at, trainer, "first")  # noqa: E731
    for picture in photographed(monkeypatch, directory, tmp_path, save):
        if (picture / MANIFEST_FILE).exists():
            assert same_weights(load(picture)[0], trainer.model)
        save(picture)
        assert same_weights(load(picture)[0], trainer.model)
        assert not (picture / NEXT_WEIGHTS_FILE).exists()


@pytest.mark.parametrize("failing", range(1, 5))
def test_save_failed_at_any_file_is_repaired_by_next(tmp_path, monkeypatch, failing):
    trainer = tiny.checkpoint(tmp_path)
    trainer.update()
    moves = []

    def replace(source, target):
        moves.append(Path(target).name)
        if len(moves) == failing:
            raise OSError("no space left")
        os.rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(OSError, match="no space left"):
            save_checkpoint(tmp_path, trainer, "again")
    assert not [name for name in names(tmp_path) if name.startswith(".")]
    load(tmp_path)
    assert resume(tmp_path).progress.update == (0 if failing == 1 else 1)

    save_checkpoint(tmp_path, trainer, "again")
    assert same_weights(load(tmp_path)[0], trainer.model)
    assert names(tmp_path) == [MANIFEST_FILE, WEIGHTS_FILE, TRAINING_FILE]


def test_weights_under_their_next_name_are_found_by_their_hash(tmp_path):
    saved = tiny.checkpoint(tmp_path)
    (tmp_path / WEIGHTS_FILE).rename(tmp_path / NEXT_WEIGHTS_FILE)
    (tmp_path / WEIGHTS_FILE).write_bytes(b"older weights")
    assert same_weights(load(tmp_path)[0], saved.model)


@pytest.mark.parametrize("failing", ["fsync", "chmod", "replace"])
def test_failed_write_keeps_the_old_file_alone(tmp_path, monkeypatch, failing):
    def fail(*_):
        raise OSError("no space left")

    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="no space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_write_replaces_what_a_kill_left(tmp_path):
    (tmp_path / ".file.next").write_bytes(b"cut off, and longer than what comes now")
    write_atomically(tmp_path / "file", b"whole")
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"whole"


def test_write_to_a_full_disk_names_file_and_remedy(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", fail)
    expected = rf"No space left on device; free space there, and start .* with --resume: '{tmp_path}/file'"
    with pytest.raises(OSError, match=expected):
        write_atomically(tmp_path / "file", b"new")


def test_write_replaces_the_old_file(tmp_path):
    path = tmp_path / "file"
    for data in (b"a long first version", b"short"):
        write_atomically(path, data)
        assert path.read_bytes() == data
    assert names(tmp_path) == ["file"]


def test_write_is_on_the_disk_before_it_takes_the_name(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        original = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *given, n=name, do=original: calls.append(n) or do(*given))
    write_atomically(tmp_path / "file", b"data")
    assert calls == ["fsync", "replace", "fsync"]


# Damage


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty"])
def test_damaged_weights_are_refused_by_the_name_of_their_file(tmp_path, damage):
    tiny.checkpoint(tmp_path, "ntm")
    path = tmp_path / WEIGHTS_FILE
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[-100] ^= 1
    path.write_bytes({"flip": data, "truncate": data[:-1], "empty": b""}[damage])
    with pytest.raises(ManifestError, match=rf"{WEIGHTS_FILE}: its SHA-256 is .* the file is damaged"):
        load(tmp_path)


def test_weights_of_another_run_are_refused(tmp_path):
    for seed in (1, 2):
        tiny.checkpoint(tmp_path / str(seed), seed=seed)
    shutil.copy(tmp_path / "1" / WEIGHTS_FILE, tmp_path / "2")
    with pytest.raises(ManifestError, match="belongs to another manifest"):
        load(tmp_path / "2")


def test_missing_weights_are_named(tmp_path):
    tiny.checkpoint(tmp_path)
    (tmp_path / WEIGHTS_FILE).unlink()
    with pytest.raises(ManifestError, match=f"{WEIGHTS_FILE}: no such file"):
        load(tmp_path)


def test_weights_that_do_not_fit_are_refused_by_file(tmp_path):
    tiny.checkpoint(tmp_path, "dnc")
    path = tmp_path / MANIFEST_FILE
    path.write_text(path.read_text().replace('"word_size": 4', '"word_size": 5'))
    with pytest.raises(ManifestError, match=f"(?s){WEIGHTS_FILE}: .*size mismatch"):
        load(tmp_path)


def test_weights_not_in_safetensors_are_refused_despite_their_hash(tmp_path):
    tiny.checkpoint(tmp_path)
    (tmp_path / WEIGHTS_FILE).write_bytes(b"not weights")
    values = json.loads((tmp_path / MANIFEST_FILE).read_text())
    values["weights_sha256"] = sha256(tmp_path / WEIGHTS_FILE)
    (tmp_path / MANIFEST_FILE).write_text(json.dumps(values))
    with pytest.raises(ManifestError, match=f"{WEIGHTS_FILE}: "):
        load(tmp_path)


def test_directory_without_a_manifest_is_no_checkpoint(tmp_path):
    with pytest.raises(ManifestError, match=f"{MANIFEST_FILE}: No such file or directory; a checkpoint is a directory"):
        load(tmp_path)


@pytest.mark.parametrize("content", [None, b"", b"\x10\0\0\0\0\0\0\0{", "foreign"])
def test_training_file_that_cannot_be_used_is_named(tmp_path, content):
    if content == "foreign":
        save_file({"weight": torch.zeros(3)}, tmp_path / TRAINING_FILE)
    elif content is not None:
        (tmp_path / TRAINING_FILE).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{TRAINING_FILE}: "):
        resume(tmp_path)


# Measured errors


def row(length, memory_size, errors):
    return {"options": {"length": length}, "memory_size": memory_size, "errors": errors}


def test_evaluation_replaces_rows_of_same_options_and_memory_size(tmp_path):
    tiny.checkpoint(tmp_path, "dnc")
    save_evaluation(tmp_path, read_manifest(tmp_path), [row(2, 8, 0.1), row([1, 2], 8, 0.2), row(2, 16, 0.3)])
    save_evaluation(tmp_path, read_manifest(tmp_path), [row(3, 8, 0.4), row(2, 8, 0.5), row([1, 2], 8, 0.6)])
    measured = [row(2, 8, 0.5), row([1, 2], 8, 0.6), row(2, 16, 0.3), row(3, 8, 0.4)]
    assert read_manifest(tmp_path).evaluation == measured


def test_evaluation_changes_nothing_else_of_the_checkpoint(tmp_path):
    tiny.checkpoint(tmp_path)
    before = json.loads((tmp_path / MANIFEST_FILE).read_text())
    save_evaluation(tmp_path, read_manifest(tmp_path), [row(2, None, 0.1)])
    after = json.loads((tmp_path / MANIFEST_FILE).read_text())
    assert after == before | {"evaluation": [row(2, None, 0.1)]}
    load(tmp_path)
