"""Several seeds in parallel processes: each equals a run alone, and none disturbs another."""

import multiprocessing
import signal
import subprocess
import sys
import time

import pytest
import torch
from tqdm import tqdm

from models.config import ConfigError
from models.manifest import WEIGHTS_FILE, read_manifest
from tests.training import tiny
from tests.waiting import until
from training import seeds as seeds_module
from training.checkpoint import resume, save_checkpoint
from training.files import TRAINING_FILE
from training.run import train
from training.run_metrics import METRICS_FILE
from training.seeds import End, seed_directories, train_seeds
from training.trainer import Trainer

PATIENCE_SECONDS = 100

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3 * PATIENCE_SECONDS)]

HOW = {"device": "cpu", "save_every": 10, "threads": 1}


def alone(preset, seed, out):
    """Train one seed in this process, and return its weights and metrics."""
    train(preset.with_training(seed=seed), out, "alone", device="cpu", resuming=False, save_every=500)
    return weights_and_metrics(out)


def weights_and_metrics(directory):
    return [(directory / name).read_bytes() for name in (WEIGHTS_FILE, METRICS_FILE)]


def test_seeds_in_parallel_equal_runs_alone(tmp_path):
    preset = tiny.preset("ntm", updates=60)
    assert train_seeds(preset, [2, 1], tmp_path / "runs", "engram train", jobs=2, **HOW) == {
        2: End.FINISHED,
        1: End.FINISHED,
    }
    for seed in (1, 2):
        run = tmp_path / "runs" / f"seed-{seed}"
        assert weights_and_metrics(run) == alone(preset, seed, tmp_path / f"alone-{seed}")
        assert (read_manifest(run).training["seed"], read_manifest(run).training["finished"]) == (seed, True)


def test_seed_that_fails_is_named_while_others_go_on(tmp_path, capfd):
    spoilt = tiny.checkpoint(tmp_path / "seed-2", updates=4, seed=2)
    torch.nn.init.constant_(spoilt.model.output.bias, torch.nan)
    save_checkpoint(tmp_path / "seed-2", spoilt, "engram train")
    (tmp_path / "seed-4").touch()
    ends = train_seeds(tiny.preset(), [4, 2, 1], tmp_path, "engram train", jobs=2, **HOW)
    assert ends == {4: End.FAILED, 2: End.DIVERGED, 1: End.FINISHED}
    complaints = capfd.readouterr().err
    assert "seed 2: update 10, seed 2: output.bias is not finite" in complaints
    assert "seed 4: " in complaints
    assert read_manifest(tmp_path / "seed-1").training["finished"]


@pytest.mark.parametrize("kind", [RuntimeError, MemoryError, ValueError, OSError])
def test_seed_that_fails_prints_one_line(tmp_path, monkeypatch, capsys, kind):
    def fail(*_, **__):
        raise kind("out of memory")

    monkeypatch.setattr(seeds_module, "train", fail)
    monkeypatch.setattr("multiprocessing.parent_process", multiprocessing.current_process)
    with pytest.raises(SystemExit) as stopped:
        seeds_module._train_one(tiny.preset(seed=7).values(), tmp_path, "engram train", 0, tqdm.get_lock(), {})
    assert stopped.value.code == seeds_module.End.FAILED
    assert capsys.readouterr().err == "seed 7: out of memory\n"


def test_seed_that_cannot_be_is_refused_before_any_is_trained(tmp_path):
    with pytest.raises(ConfigError, match="seed must be at least 0, got -2"):
        train_seeds(tiny.preset(), [1, -2], tmp_path, "engram train", jobs=2, **HOW)
    assert list(tmp_path.iterdir()) == []


def start_and_stop(words, directories, number):
    """Run `engram` until there is a fresh save in each directory, then send the signal; return its output."""
    files = [directory / TRAINING_FILE for directory in directories]
    before = [file.stat().st_mtime if file.exists() else 0.0 for file in files]
    command = [sys.executable, "-m", "engram", *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    deadline = time.monotonic() + PATIENCE_SECONDS
    with subprocess.Popen(command, cwd=tiny.ROOT, **pipes) as process:
        while not all(file.exists() and file.stat().st_mtime > old for file, old in zip(files, before, strict=True)):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        printed, complaints = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 1, complaints
    return printed


def test_signal_stops_all_seeds_and_the_command_resumes_them(tmp_path):
    endless = {"updates": 10**6, "validate_every": 10**6}
    out = tmp_path / "runs"
    words = ["train", tiny.write_toml(tmp_path / "tiny.toml", **endless), "--out", out]
    words += ["--seeds", 1, 2, 3, "--jobs", 2, "--save-every", 20]
    runs, reached = [out / "seed-1", out / "seed-2"], []
    for number in (signal.SIGTERM, signal.SIGINT):
        printed = start_and_stop(words, runs, number)
        assert printed.count("came to no end: the same command goes on with it") == 3
        reached.append([resume(run).progress.update for run in runs])
    assert all(0 < first < second < 10**6 for first, second in zip(*reached, strict=True))
    assert not (out / "seed-3").exists()

    whole = Trainer(tiny.preset(seed=2, **endless))
    whole.run(lambda _: whole.progress.update < reached[1][1])
    saved = resume(runs[1]).model.state_dict()
    assert all(torch.equal(weight, saved[name]) for name, weight in whole.model.state_dict().items())


def test_seeds_of_a_killed_parent_save_and_stop(tmp_path):
    """Only a run that stops saves here: the files show that both did."""
    long = {"updates": 50_000, "validate_every": 50_000}
    words = ["train", tiny.write_toml(tmp_path / "tiny.toml", **long), "--out", tmp_path / "runs"]
    words += ["--seeds", 1, 2, "--jobs", 2, "--save-every", 10**6]
    command, quiet = [sys.executable, "-m", "engram", *map(str, words)], subprocess.DEVNULL
    runs = [tmp_path / "runs" / "seed-1", tmp_path / "runs" / "seed-2"]
    with subprocess.Popen(command, cwd=tiny.ROOT, stdout=quiet, stderr=quiet) as process:
        until(lambda: all((run / METRICS_FILE).exists() for run in runs), PATIENCE_SECONDS)
        assert not any((run / TRAINING_FILE).exists() for run in runs)
        process.kill()
    until(lambda: all((run / WEIGHTS_FILE).exists() for run in runs), PATIENCE_SECONDS)
    assert all(0 < resume(run).progress.update < long["updates"] for run in runs)


def test_directories_of_seeds_are_in_the_order_of_their_numbers(tmp_path):
    for name in ("seed-10", "seed-9", "seed-x", "seed-", "seeds", "seed-1"):
        (tmp_path / name).mkdir()
    assert [path.name for path in seed_directories(tmp_path)] == ["seed-1", "seed-9", "seed-10"]
    assert seed_directories(tmp_path / "nowhere") == []
