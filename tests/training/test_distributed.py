"""Several processes that train one model, as torchrun starts them: their result is that of one, and they end together.

One process sums a gradient over the rows of a batch in their order, several in other orders: results are the same up to
rounding, about 1e-7 on weights of about 1. A wrongly weighted gradient, in which each process's mean counts alike,
would differ by 4e-2.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from engram import main as cli
from models.config import ConfigError
from models.manifest import WEIGHTS_FILE, read_manifest
from tests.training import tiny, together
from training import run as run_module
from training.checkpoint import resume
from training.distributed import Alone, BatchPart, Together, join, launcher
from training.files import TRAINING_FILE, CheckpointError
from training.run import train
from training.run_metrics import read_metrics
from training.tasks import Episode
from training.trainer import Trainer

pytestmark = pytest.mark.slow

PATIENCE_SECONDS = 90


@contextlib.contextmanager
def started(processes, *words):
    """Start a module several times by torchrun, its processes talking within this machine, until the context ends."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", processes, "-m", *words]
    loopback = "lo" if sys.platform == "linux" else "lo0"
    environment = os.environ | {"GLOO_SOCKET_IFNAME": loopback, "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(list(map(str, command)), cwd=tiny.ROOT, env=environment, **pipes) as process:
        try:
            yield process
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def by_several(tmp_path_factory):
    """The directory of the runs of 3 processes, and the status and error output of torchrun."""
    out = tmp_path_factory.mktemp("together")
    with started(3, "tests.training.together", out) as process:
        _, complaints = process.communicate(timeout=PATIENCE_SECONDS)
    return out, process.returncode, complaints


@pytest.fixture(scope="module")
def by_one(tmp_path_factory):
    """The directory of the same runs by one process."""
    out = tmp_path_factory.mktemp("alone")
    for name, (preset, path) in together.RUNS.items():
        together.run(out, name, preset, path)
    return out


def weights(directory):
    return load_file(directory / WEIGHTS_FILE)


@pytest.mark.parametrize("name", together.RUNS)
def test_weights_are_those_of_one_process_up_to_rounding(by_several, by_one, name):
    out, _, complaints = by_several
    assert (out / name).exists(), complaints
    assert_close(weights(out / name), weights(by_one / name), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", together.RUNS)
def test_losses_errors_and_lessons_are_those_of_the_whole_batch(by_several, by_one, name):
    ours, theirs = resume(by_several[0] / name).progress, resume(by_one / name).progress
    assert ours.recent_losses == pytest.approx(theirs.recent_losses, abs=1e-5)
    assert ours.recent_errors == pytest.approx(theirs.recent_errors, abs=1e-5)
    assert (ours.update, ours.sequences, ours.stage) == (theirs.update, theirs.sequences, theirs.stage)
    assert ours.validation_errors == theirs.validation_errors


def test_leader_alone_records_the_work_of_all(by_several, by_one):
    name = "fused-mixed-lengths-lessons"
    ours, theirs = read_metrics(by_several[0] / name), read_metrics(by_one / name)
    assert [line["update"] for line in ours] == [20, 40, 50, 60]
    for our_line, their_line in zip(ours, theirs, strict=True):
        assert our_line == pytest.approx(their_line, abs=1e-5)


def test_run_stopped_in_one_process_resumes_up_to_rounding(by_several):
    """Up to rounding: with three processes, torch sums the first gradients after a start in another order."""
    out, _, _ = by_several
    stopped, whole = (load_file(out / name / TRAINING_FILE) for name in ("stopped", "whole"))
    assert_close(stopped, whole, rtol=0, atol=1e-5)


def test_process_that_dies_ends_the_others_keeping_saves(by_several):
    out, status, complaints = by_several
    assert status == 1
    assert "Signal 9 (SIGKILL) received" in complaints
    assert resume(out / "dead").progress.update == 5


def test_processes_end_the_threads_of_their_group_before_the_interpreter(tmp_path):
    """Otherwise a thread that frees a tensor late may end its process by SIGABRT."""
    with started(2, "tests.training.parting", tmp_path / "out") as process:
        printed, complaints = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, printed) == (0, ""), complaints
    assert read_manifest(tmp_path / "out").training["finished"]


def test_torchrun_signalled_saves_and_prints_the_resuming_command(tmp_path):
    file, out = tiny.write_toml(tmp_path / "tiny.toml", updates=100_000), tmp_path / "out"
    with started(2, "engram", "train", file, "--out", out, "--save-every", 10) as process:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (out / TRAINING_FILE).exists():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        printed, complaints = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 1
    resuming = f"engram train {file} --out {out} --save-every 10"
    assert printed.count(f"Go on with: torchrun --nproc-per-node 2 --no-python {resuming} --resume\n") == 1, complaints
    assert f": {resume(out).progress.update} updates" in printed
    assert read_manifest(out).training["command"] == f"torchrun --nproc-per-node 2 --no-python {resuming}"


# One process by itself


def asked(*counts):
    """Return a batch whose sequences have these numbers of elements asked for."""
    mask = (torch.arange(max(counts))[:, None] < torch.tensor(counts)).float()
    inputs = torch.arange(len(counts)).repeat(len(mask), 1)[:, :, None].float()
    return Episode(inputs, inputs, mask, torch.tensor(counts))


def test_parts_of_a_batch_are_ordered_and_weighted_rows():
    first, second = (Together(rank, 2, "cpu").part(asked(1, 2, 5)) for rank in range(2))
    assert first.episode.inputs[0].flatten().tolist() == [0]
    assert second.episode.inputs[0].flatten().tolist() == [1, 2]
    assert second.episode.lengths.tolist() == [2, 5]
    assert (first.sequences, first.asked) == pytest.approx((1 / 3, 1 / 8))
    assert (second.sequences, second.asked) == pytest.approx((2 / 3, 7 / 8))


def test_parts_of_a_batch_without_answers_have_no_weight():
    for processes in (Together(0, 2, "cpu"), Together(1, 2, "cpu"), Alone()):
        part = processes.part(asked(0, 0, 0)._replace(mask=torch.zeros(4, 3)))
        assert part.asked == 0


def test_process_without_answers_in_its_rows_adds_nothing():
    class Idle(Alone):
        def part(self, batch):
            return BatchPart(batch._replace(mask=torch.zeros_like(batch.mask)), 1.0, 0.0)

    for path in ("fused", "torch"):
        trainer = Trainer(tiny.preset("dnc"), path=path, processes=Idle())
        update = trainer.update()
        assert (update.loss, update.gradient_norm, update.skipped) == (0, 0, None)
        assert trainer.updates.gradients().keys() == dict(trainer.model.named_parameters()).keys()


def test_processes_draw_noise_of_their_own_and_the_same_again():
    def noise(rank, update):
        torch.manual_seed(5)
        Together(rank, 3, "cpu").own_noise(1, update)
        return torch.rand(8).tolist()

    drawn = [noise(rank, update) for rank in range(3) for update in (7, 8)]
    assert len({tuple(numbers) for numbers in drawn}) == 5
    assert noise(0, 7) == noise(0, 8)
    assert noise(2, 8) == drawn[-1]


def test_environment_without_this_process_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "1")
    expected = (
        "WORLD_SIZE is 4, but LOCAL_RANK, MASTER_ADDR, MASTER_PORT is not set: start several processes with torch"
    )
    with pytest.raises(ValueError, match=expected):
        join("cpu")


def test_process_without_a_gpu_names_their_number(monkeypatch):
    values = {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "3", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match=r"process 3 of this machine has no GPU: torch sees 2 here.*-per-node 2"):
        join("cuda")


def test_batch_of_fewer_sequences_than_processes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "join", lambda device: Together(0, 5, device))
    with pytest.raises(ConfigError, match=r"training\.batch_size is 4, but there are 5 processes"):
        train(tiny.preset(), tmp_path / "out", tiny.COMMAND, device="cpu", resuming=False, save_every=500)
    assert not (tmp_path / "out").exists()


def test_process_with_another_checkpoint_does_not_resume(tmp_path, monkeypatch):
    class Elsewhere(Alone):
        def sum(self, *values):
            return [value + 1 for value in values]

    tiny.checkpoint(tmp_path, updates=3)
    monkeypatch.setattr(run_module, "join", Elsewhere)
    with pytest.raises(CheckpointError, match="process 0 found update 3 there, others another one"):
        train(tiny.preset(), tmp_path, tiny.COMMAND, device="cpu", resuming=True, save_every=500)


def test_several_seeds_by_torchrun_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    file = tiny.write_toml(tmp_path / "tiny.toml")
    assert cli.main(["train", str(file), "--out", str(tmp_path / "out"), "--seeds", "1", "2"]) == 1
    assert "several seeds are trained by a process each: start them without torchrun" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ""),
        ({"WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}, ""),
        ({"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}, "torchrun --nproc-per-node 2 --no-python "),
        (
            {"WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": "3", "GROUP_WORLD_SIZE": "2"},
            "torchrun --nnodes 2 --nproc-per-node 3 --no-python ",
        ),
    ],
    ids=["by-itself", "one", "two", "two-machines"],
)
def test_recorded_command_of_several_processes_is_torchruns(monkeypatch, environment, expected):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert launcher() == expected
