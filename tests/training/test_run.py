"""A run from the command line: stopped, killed, resumed, ended by its numbers, and beside other runs."""

import contextlib
import dataclasses
import math
import random
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from kernels.update import FusedUpdate
from models.artefact import load
from models.config import ConfigError
from models.manifest import WEIGHTS_FILE, read_manifest
from tests.training import tiny
from tests.training.tasks.situations import write_stories
from training import run as run_module
from training.card import render_card
from training.checkpoint import resume, save_evaluation
from training.files import TRAINING_FILE, CheckpointError
from training.preset import RECENT, load_preset, preset_from_values
from training.run import stop_requests, train
from training.run_metrics import METRICS_FILE
from training.trainer import NotFinite, Trainer

LONG = {"updates": 1000, "validate_every": 200}
"""Long enough, at about a millisecond an update, to be stopped in the middle."""

PATIENCE_SECONDS = 60


def run(preset, out, resuming=False, save_every=500):
    return train(preset, out, "engram train tiny", device="cpu", resuming=resuming, save_every=save_every)


@pytest.fixture
def start():
    """Start `engram` in processes of their own, which end with the test."""
    with contextlib.ExitStack() as stack:

        def start(*words):
            command = [sys.executable, "-m", "engram", *map(str, words)]
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            process = stack.enter_context(subprocess.Popen(command, cwd=tiny.ROOT, **pipes))
            stack.callback(process.kill)
            return process

        yield start


def wait_for_a_save(process, out, after=0.0):
    """Return once a process has saved a checkpoint later than the time `after`."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    file = out / TRAINING_FILE
    while not (file.exists() and file.stat().st_mtime > after):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.002)


def card(directory):
    return render_card("name", read_manifest(directory))


def bytes_of_files(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture(scope="module")
def long_run(tmp_path_factory):
    """The preset file of a long run, and the weights and metrics that it leaves when nothing interrupts it."""
    directory = tmp_path_factory.mktemp("long")
    file = tiny.write_toml(directory / "tiny.toml", **LONG)
    run(load_preset(str(file)), directory / "whole")
    return file, weights_and_metrics(directory / "whole")


def weights_and_metrics(directory):
    return [(directory / name).read_bytes() for name in (WEIGHTS_FILE, METRICS_FILE)]


@pytest.mark.slow
def test_process_stopped_and_resumed_ends_bit_for_bit(tmp_path, start, long_run):
    file, whole = long_run
    out = tmp_path / "with a space"
    process = start("train", file, "--out", out, "--save-every", 20)
    wait_for_a_save(process, out)
    process.send_signal(signal.SIGTERM)
    printed, complaints = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130, complaints
    assert 0 < resume(out).progress.update < 1000

    text = re.search(r"Go on with: engram (train .* --resume)$", printed, re.MULTILINE)[1]
    process = start(*shlex.split(text))
    _, complaints = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, complaints
    assert weights_and_metrics(out) == whole


@pytest.mark.slow
def test_process_killed_and_resumed_ends_bit_for_bit(tmp_path, start, long_run):
    file, whole = long_run
    out, saved = tmp_path / "out", 0.0
    for resumption in ([], ["--resume"]):
        process = start("train", file, "--out", out, "--save-every", 3, *resumption)
        wait_for_a_save(process, out, saved)
        time.sleep(random.uniform(0, 0.2))
        process.kill()
        assert process.wait(PATIENCE_SECONDS) == -signal.SIGKILL
        saved = (out / TRAINING_FILE).stat().st_mtime

    assert resume(out).progress.update < 1000
    run(load_preset(str(file)), out, resuming=True)
    assert weights_and_metrics(out) == whole
    assert len(whole[1].splitlines()) == 1000 // RECENT + 1000 // 200
    assert load(out)[1].training["updates"] == 1000


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_run_after_the_update_it_came_in(tmp_path, monkeypatch, number):
    update = Trainer.update

    def update_and_signal(trainer):
        if trainer.progress.update == 4:
            signal.raise_signal(number)
        return update(trainer)

    before = signal.getsignal(number)
    monkeypatch.setattr(Trainer, "update", update_and_signal)
    assert run(tiny.preset(), tmp_path).progress.update == 5
    assert resume(tmp_path).progress.update == 5
    assert read_manifest(tmp_path).training["updates"] == 5
    assert signal.getsignal(number) is before


def test_second_signal_within_seconds_is_the_same_wish_to_stop():
    with stop_requests() as received:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
    assert received == [signal.SIGINT, signal.SIGTERM]


def test_second_signal_later_has_its_usual_effect(monkeypatch):
    monkeypatch.setattr(run_module, "SAME_WISH_SECONDS", 0.0)
    with stop_requests() as received:
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.01)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert received == [signal.SIGINT]


def test_run_saves_every_so_many_updates_and_at_its_end(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(run_module, "save_checkpoint", lambda _, trainer, __: saved.append(trainer.progress.update))
    run(tiny.preset(updates=25), tmp_path, save_every=10)
    assert saved == [10, 20, 25]


def test_run_resumed_in_saves_equals_the_uninterrupted_run(tmp_path, monkeypatch):
    whole = run(tiny.preset("dnc"), tmp_path / "whole")
    update = Trainer.update
    for stop in (3, 17, 30):
        monkeypatch.setattr(Trainer, "update", lambda trainer, stop=stop: stop_at(stop, trainer, update))
        resumed = run(tiny.preset("dnc"), tmp_path / "parts", resuming=stop > 3)
    assert resumed.progress == whole.progress
    names = (WEIGHTS_FILE, METRICS_FILE, "manifest.json")
    assert [(tmp_path / "parts" / name).read_bytes() for name in names] == [
        (tmp_path / "whole" / name).read_bytes() for name in names
    ]


def run_until(number, preset, out):
    """Run until a signal comes in the update with this number."""
    update = Trainer.update
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "update", lambda trainer: stop_at(number, trainer, update))
        return run(preset, out)


def stop_at(number, trainer, update):
    if trainer.progress.update + 1 == number:
        signal.raise_signal(signal.SIGTERM)
    return update(trainer)


def test_finished_run_resumed_changes_nothing(tmp_path):
    run(tiny.preset(), tmp_path)
    row = {"options": {"length": 2}, "memory_size": None, "errors": 0.5}
    save_evaluation(tmp_path, read_manifest(tmp_path), [row])
    before, run_before = bytes_of_files(tmp_path), load_file(tmp_path / TRAINING_FILE)

    again = train(tiny.preset(), tmp_path, "engram train again", device="cpu", resuming=True, save_every=500)
    assert again.progress.update == 30
    after, run_after = bytes_of_files(tmp_path), load_file(tmp_path / TRAINING_FILE)
    assert read_manifest(tmp_path).evaluation == [row]
    assert before.keys() == after.keys()
    assert all(after[name] == data for name, data in before.items() if name != TRAINING_FILE)
    assert all(torch.equal(run_after[name], tensor) for name, tensor in run_before.items())


def test_training_on_drops_measurements_of_older_weights(tmp_path):
    tiny.checkpoint(tmp_path, updates=5)
    save_evaluation(tmp_path, read_manifest(tmp_path), [{"options": {}, "memory_size": None}])
    run(tiny.preset(), tmp_path, resuming=True)
    assert read_manifest(tmp_path).evaluation == []


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (tiny.preset(seed=2), r"training\.seed = 1, but 2 was asked for"),
        (
            tiny.preset(updates=31),
            r"training\.updates = 30, but 31 was .* engram train --resume gives more to one that",
        ),
        (tiny.preset("dnc"), r"model\.kind = 'rnn', but 'dnc' was asked for"),
        (tiny.preset_with("task", bits=3), r"task\.bits = 2, but 3 was asked for"),
        (tiny.preset_with("model", controller=tiny.FEED_FORWARD), r"model\.controller = {'kind': 'lstm'"),
        (tiny.preset(learning_rate=0.5), r"optimizer\.learning_rate = 0\.01, but 0\.5 was asked for"),
        (tiny.preset(curriculum=[{"length": 1, "until": 1}]), "was trained with another curriculum"),
    ],
    ids=["seed", "updates", "kind", "task", "controller", "optimizer", "curriculum"],
)
def test_resuming_with_other_settings_is_refused_by_the_key(tmp_path, change, key):
    tiny.checkpoint(tmp_path, updates=3)
    before = bytes_of_files(tmp_path)
    with pytest.raises(CheckpointError, match=key):
        run(change, tmp_path, resuming=True)
    assert bytes_of_files(tmp_path) == before


def train_on(preset, out, **how):
    return train(preset, out, "engram train tiny", device="cpu", resuming=True, save_every=500, training_on=True, **how)


@pytest.mark.parametrize("model", ["dnc", "rnn"])
def test_finished_run_with_more_updates_equals_a_long_run(tmp_path, model):
    constant = {"schedule": "constant", "warmup": 7}
    whole = run(tiny.preset(model, updates=60, **constant), tmp_path / "whole")
    run(tiny.preset(model, updates=25, **constant), tmp_path / "parts")
    assert train_on(tiny.preset(model, updates=40, **constant), tmp_path / "parts").progress.update == 40
    more = train_on(tiny.preset(model, updates=60, **constant), tmp_path / "parts")
    assert more.progress == whole.progress
    assert weights_and_metrics(tmp_path / "parts") == weights_and_metrics(tmp_path / "whole")
    tensors, due = (load_file(tmp_path / name / TRAINING_FILE) for name in ("parts", "whole"))
    assert {name: tensor.tolist() for name, tensor in tensors.items()} == {name: due[name].tolist() for name in due}
    assert read_manifest(tmp_path / "parts") == read_manifest(tmp_path / "whole")


def test_run_at_its_target_goes_on_without_patience(tmp_path):
    at_once = {"target_errors": 100, "updates": 50}
    whole = run(tiny.preset(patience=0, **at_once), tmp_path / "whole")
    assert run(tiny.preset(patience=2, **at_once), tmp_path / "parts").progress.update == 20
    assert train_on(tiny.preset(patience=0, **at_once), tmp_path / "parts").progress == whole.progress
    assert weights_and_metrics(tmp_path / "parts") == weights_and_metrics(tmp_path / "whole")


def test_run_at_its_target_needs_more_than_updates(tmp_path):
    run(tiny.preset(target_errors=100, patience=2), tmp_path)
    before = bytes_of_files(tmp_path)
    with pytest.raises(CheckpointError, match=r"ended at its target, .*: --set training\.patience=0 trains on"):
        train_on(tiny.preset(target_errors=100, patience=2, updates=90), tmp_path)
    with pytest.raises(CheckpointError, match="has made 20 updates, but at most 19 were asked for"):
        train_on(tiny.preset(target_errors=100, patience=0, updates=19), tmp_path)
    assert bytes_of_files(tmp_path) == before


def test_schedule_given_another_end_is_logged_and_recorded(tmp_path, capsys):
    run(tiny.preset(updates=20), tmp_path)
    trainer = train_on(tiny.preset(updates=30), tmp_path)
    assert (
        "The linear schedule of the learning rate is now over 30 updates. The first 20 had" in capsys.readouterr().err
    )
    assert trainer.updates.fused.optimizer.rate == tiny.preset().optimizer.rate(29, 30)
    assert read_manifest(tmp_path).training["rescheduled"] == [20]
    assert "It was trained on after 20 updates, and its learning rate scheduled anew." in card(tmp_path)
    assert run(tiny.preset(updates=30), tmp_path, resuming=True).progress.rescheduled == [20]


@pytest.mark.parametrize("training_on", [True, False])
def test_unfinished_run_keeps_its_settings(tmp_path, training_on):
    tiny.checkpoint(tmp_path, updates=3 if training_on else 30)
    with pytest.raises(CheckpointError, match=r"training\.updates = 30, but 40 was asked for"):
        train(tiny.preset(updates=40), tmp_path, "", device="cpu", resuming=True, save_every=9, training_on=training_on)


def test_resuming_under_another_presets_name_is_allowed(tmp_path):
    tiny.checkpoint(tmp_path, updates=3)
    renamed = tiny.preset_with(name="moved")
    assert run(renamed, tmp_path, resuming=True).progress.update == 30


def test_resuming_with_other_measurements_in_mind_is_no_other_setting(tmp_path):
    tiny.checkpoint(tmp_path, updates=3)
    assert run(tiny.preset(evaluation=[{"length": 9}]), tmp_path, resuming=True).finished


def babi(directory):
    task = {"name": "babi", "directory": str(directory), "tasks": [1]}
    model = tiny.MODELS["rnn"] | {"embedding": {"size": 3}}
    return preset_from_values(tiny.values(updates=6) | {"task": task, "model": model})


def test_run_goes_on_with_its_data_elsewhere(tmp_path):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        write_stories(tmp_path / name)
    here, there = tmp_path / "here", tmp_path / "there"
    whole = run(babi(here), tmp_path / "whole")
    assert run_until(3, babi(here), tmp_path / "moved").progress.update == 3
    moved = run(babi(there), tmp_path / "moved", resuming=True)
    assert moved.progress == whole.progress
    assert read_manifest(tmp_path / "moved").task["directory"] == str(there)


def test_run_with_impossible_greatest_sizes_is_refused_first(tmp_path):
    task = {"name": "shortest-path", "nodes": [4, 5], "neighbours": [1, 4], "moves": [1, 3]}
    preset = preset_from_values(tiny.values() | {"task": task})
    sizes = "'nodes': 5, 'neighbours': 4, 'moves': 3"
    expected = rf"validation has every size at its greatest, .*{sizes}.*, but ShortestPath\.moves"
    with pytest.raises(ConfigError, match=expected):
        run(preset, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_run_with_an_impossible_lesson_is_refused_first(tmp_path):
    task = {"name": "shortest-path", "nodes": 5, "neighbours": 2, "moves": 1}
    lesson = {"neighbours": 4, "moves": 3, "until": 0.1}
    preset = preset_from_values(tiny.values(curriculum=[lesson]) | {"task": task})
    with pytest.raises(ConfigError, match=r"ShortestPath\.moves must be distances"):
        run(preset, tmp_path / "out")


def test_directory_that_holds_a_run_is_not_written_over(tmp_path):
    tiny.checkpoint(tmp_path, updates=3)
    before = bytes_of_files(tmp_path)
    for out in (tmp_path, tmp_path / "nothing" / ".."):
        with pytest.raises(CheckpointError, match=r"holds a training run: go on with it \(--resume\)"):
            run(tiny.preset(), out)
    assert bytes_of_files(tmp_path) == before


def test_resuming_where_nothing_is_says_so_and_makes_nothing(tmp_path):
    with pytest.raises(CheckpointError, match=rf"{TRAINING_FILE}: .* there is no training run to resume here"):
        run(tiny.preset(), tmp_path / "nothing", resuming=True)
    assert not (tmp_path / "nothing").exists()


def test_directory_that_cannot_be_made_is_refused_before_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "update", lambda _: pytest.fail("it trained"))
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        run(tiny.preset(), tmp_path / "file" / "out")


def test_skipped_updates_are_shown_beside_the_progress(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(FusedUpdate, "_step", lambda *_: pytest.fail("it stepped"))
    monkeypatch.setattr(FusedUpdate, "gradient_norm", lambda _: math.nan)
    run(tiny.preset(skips=30), tmp_path)
    assert "30 updates skipped: not finite" in capsys.readouterr().err
    assert read_manifest(tmp_path).training["skipped_updates"] == 30


def test_lesson_is_shown_beside_the_progress(tmp_path, capsys):
    run(tiny.preset(curriculum=[{"length": 1, "until": 1e-9}]), tmp_path)
    assert "lesson 1 of 2" in capsys.readouterr().err


def test_run_that_skips_too_many_updates_keeps_its_checkpoint(tmp_path, monkeypatch):
    norm_of, added = FusedUpdate.gradient_norm, iter([0.0] * 12 + [math.nan] * 30)
    monkeypatch.setattr(FusedUpdate, "gradient_norm", lambda update: norm_of(update) + next(added))
    with pytest.raises(NotFinite, match="update 18, seed 1: the gradient's norm is not finite"):
        run(tiny.preset(skips=5), tmp_path, save_every=5)
    good = resume(tmp_path)
    assert (good.progress.update, good.progress.skipped) == (15, 3)
    good.check_weights()
    assert load(tmp_path)[1].training["updates"] == 15


@pytest.mark.parametrize("save_every", [1, 5, 100])
def test_weights_that_are_not_finite_are_never_saved(tmp_path, monkeypatch, save_every):
    update = Trainer.update

    def update_and_spoil(trainer):
        done = update(trainer)
        if trainer.progress.update == 27:
            torch.nn.init.constant_(trainer.model.output.bias, torch.nan)
        return done

    tiny.checkpoint(tmp_path, updates=20)
    monkeypatch.setattr(Trainer, "update", update_and_spoil)
    with pytest.raises(NotFinite, match=r"update \d\d, seed 1: output\.bias is not finite"):
        run(tiny.preset(), tmp_path, resuming=True, save_every=save_every)
    good = resume(tmp_path)
    assert good.progress.update == {1: 26, 5: 25, 100: 20}[save_every]
    good.check_weights()


def test_run_by_torch_prints_the_reason(tmp_path, capsys):
    preset = tiny.preset("dnc", updates=2)
    run(preset, tmp_path / "fused")
    text = capsys.readouterr().err
    assert "(fused)" in text
    assert "Training by torch" not in text
    dropping = dataclasses.replace(preset, model=dataclasses.replace(preset.model, bypass_dropout=0.1))
    run(dropping, tmp_path / "torch")
    text = capsys.readouterr().err
    assert "(torch)" in text
    assert "Training by torch: there is no fused kernel for training this model: its bypass_dropout is 0.1" in text
