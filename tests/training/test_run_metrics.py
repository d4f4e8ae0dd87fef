"""The metrics of a run: lines of JSON, and events for TensorBoard."""

import errno
import json
import math
import os
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from models.config import ConfigError
from tests.training import tiny
from training.files import CheckpointError
from training.preset import RECENT
from training.run import train
from training.run_metrics import METRICS_FILE, TENSORBOARD_DIRECTORY, RunMetrics, read_metrics, require_tensorboard
from training.trainer import Progress
from training.updates import Update

UPDATE = Update(loss=0.5, errors=2.0, gradient_norm=0.25, rate=1e-3, skipped=None)


def progress(update, losses=(0.5,), **changes):
    changes = {"recent_errors": [2.0] * len(losses), "validation_errors": 1.5} | changes
    return Progress(update=update, sequences=4 * update, recent_losses=list(losses), **changes)


def write(directory, updates, after=0, validated=(), update=UPDATE):
    """Write the metrics of some updates."""
    with RunMetrics(directory, after, tensorboard=False) as metrics:
        for number in updates:
            metrics.after_update(progress(number), update, number in validated)


def updates_written(directory):
    return [line["update"] for line in read_metrics(directory)]


def test_line_comes_every_so_many_updates_and_after_every_validation(tmp_path):
    write(tmp_path, range(1, 2 * RECENT + 5), validated=(30, 2 * RECENT))
    assert updates_written(tmp_path) == [30, RECENT, 2 * RECENT, 2 * RECENT]


def test_line_has_recent_means_and_last_update(tmp_path):
    with RunMetrics(tmp_path, 0, tensorboard=False) as metrics:
        done = progress(RECENT, losses=(0.25, 0.75, 2.0), recent_errors=[1.0, 2.0, 6.0], stage=1, skipped=3)
        metrics.after_update(done, UPDATE, validated=True)
    line, validation = (json.loads(text) for text in (tmp_path / METRICS_FILE).read_text().splitlines())
    where = {"update": RECENT, "sequences": 4 * RECENT}
    means = {"stage": 1, "loss": 1.0, "errors": 3.0}
    assert line == where | means | {"gradient_norm": 0.25, "rate": 1e-3, "skipped": 3}
    assert validation == where | {"validation_errors": 1.5}


def test_line_after_a_lesson_has_its_last_loss(tmp_path):
    with RunMetrics(tmp_path, 0, tensorboard=False) as metrics:
        metrics.after_update(progress(RECENT, losses=(), stage=1), UPDATE, validated=False)
    (line,) = read_metrics(tmp_path)
    assert (line["loss"], line["errors"]) == (0.5, 2.0)


def test_nonfinite_number_is_null_in_file_and_nan_when_read(tmp_path):
    write(tmp_path, [RECENT], update=UPDATE._replace(gradient_norm=math.inf))
    assert '"gradient_norm": null' in (tmp_path / METRICS_FILE).read_text()
    (line,) = read_metrics(tmp_path)
    assert math.isnan(line["gradient_norm"])
    assert line["loss"] == 0.5


def test_line_can_be_read_as_soon_as_it_is_written(tmp_path):
    with RunMetrics(tmp_path, 0, tensorboard=False) as metrics:
        metrics.after_update(progress(RECENT), UPDATE, validated=False)
        assert updates_written(tmp_path) == [RECENT]


def test_lines_after_the_last_save_are_dropped_and_written_again(tmp_path):
    write(tmp_path, range(1, 3 * RECENT + 1), validated=(120,))
    whole = (tmp_path / METRICS_FILE).read_bytes()
    with RunMetrics(tmp_path, 110, tensorboard=False):
        assert updates_written(tmp_path) == [RECENT, 2 * RECENT]
    write(tmp_path, range(111, 3 * RECENT + 1), after=110, validated=(120,))
    assert (tmp_path / METRICS_FILE).read_bytes() == whole


def test_line_that_a_crash_cut_off_is_no_line(tmp_path):
    write(tmp_path, range(1, 2 * RECENT + 1))
    whole = (tmp_path / METRICS_FILE).read_text()
    (tmp_path / METRICS_FILE).write_text(whole[:-20])
    assert updates_written(tmp_path) == [RECENT]
    write(tmp_path, range(RECENT + 1, 2 * RECENT + 1), after=2 * RECENT)
    assert (tmp_path / METRICS_FILE).read_text() == whole


@pytest.mark.parametrize("damage", [b'{"bad": 1}', b"[1]", b"{bad", b"\xff", b'{"update": "3"}', b"\0\0"])
def test_damaged_line_is_named_by_its_file_and_number(tmp_path, damage):
    write(tmp_path, range(1, RECENT + 1))
    whole = (tmp_path / METRICS_FILE).read_bytes()
    (tmp_path / METRICS_FILE).write_bytes(whole + damage + b"\n" + whole)
    for read in (lambda: read_metrics(tmp_path), lambda: write(tmp_path, [])):
        with pytest.raises(CheckpointError, match=f"{METRICS_FILE}, line 2: expected a JSON object"):
            read()
    assert (tmp_path / METRICS_FILE).read_bytes() == whole + damage + b"\n" + whole


def test_full_disk_names_file_and_remedy(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with RunMetrics(tmp_path, 0, tensorboard=False) as metrics:
        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match=rf"space .*; free space there.* with --resume: '.*{METRICS_FILE}'") as caught:
            metrics.sync()
    assert caught.value.errno == errno.ENOSPC


def test_fresh_run_begins_a_fresh_file(tmp_path):
    write(tmp_path, range(1, RECENT + 1))
    write(tmp_path, [])
    assert read_metrics(tmp_path) == []


def test_crash_while_a_run_begins_again_loses_no_line(tmp_path, monkeypatch):
    write(tmp_path, range(1, RECENT + 1))

    def crash(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", crash)
    with pytest.raises(KeyboardInterrupt):
        RunMetrics(tmp_path, RECENT, tensorboard=False)
    assert updates_written(tmp_path) == [RECENT]


def test_directory_without_metrics_has_none(tmp_path):
    assert read_metrics(tmp_path) == []


# TensorBoard


def events(directory):
    """Return the values of TensorBoard: for each name the steps and values."""
    accumulator = EventAccumulator(str(directory / TENSORBOARD_DIRECTORY))
    accumulator.Reload()
    names = accumulator.Tags()["scalars"]
    return {name: [(event.step, event.value) for event in accumulator.Scalars(name)] for name in names}


def lines(directory):
    """Return the same from the lines of JSON."""
    found = {}
    for line in read_metrics(directory):
        for name in line.keys() - {"update", "sequences"}:
            found.setdefault(name, []).append((line["update"], pytest.approx(line[name], rel=1e-6)))
    return found


def run(preset, out, resuming=False):
    return train(preset, out, "engram train", device="cpu", resuming=resuming, save_every=500, tensorboard=True)


def test_events_equal_the_lines(tmp_path):
    run(tiny.preset(updates=110, validate_every=40), tmp_path)
    shown = events(tmp_path)
    assert shown == lines(tmp_path)
    assert [step for step, _ in shown["loss"]] == [50, 100]
    assert [step for step, _ in shown["validation_errors"]] == [40, 80]


def test_events_of_a_resumed_run_replace_those_after_its_save(tmp_path):
    with RunMetrics(tmp_path, 0, tensorboard=True) as metrics:
        for number in (50, 100, 150):
            metrics.after_update(progress(number), UPDATE, validated=False)
    with RunMetrics(tmp_path, 100, tensorboard=True) as metrics:
        for number in (150, 200):
            metrics.after_update(progress(number, losses=(0.125,)), UPDATE, validated=False)
    assert events(tmp_path)["loss"] == [(50, 0.5), (100, 0.5), (150, 0.125), (200, 0.125)]
    assert events(tmp_path) == lines(tmp_path)


def test_run_without_tensorboard_leaves_no_events(tmp_path):
    train(tiny.preset(), tmp_path, "engram train", device="cpu", resuming=False, save_every=500)
    assert not (tmp_path / TENSORBOARD_DIRECTORY).exists()


def test_missing_package_is_reported_and_metrics_stay(tmp_path, monkeypatch):
    write(tmp_path, range(1, RECENT + 1))
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(
        ConfigError, match=r"not installed: in the checkout .* -e '\.\[tensorboard\]', or leave --tensorboard"
    ):
        require_tensorboard()
    with pytest.raises(ConfigError, match="tensorboard"):
        RunMetrics(tmp_path, 0, tensorboard=True)
    assert updates_written(tmp_path) == [RECENT]
