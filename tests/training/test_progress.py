"""Progress on the error output: a bar on a terminal, and plain lines without one."""

import os
import pty
import subprocess
import sys
import termios

import pytest

from benchmarks.table import Table, print_table
from models.artefact import load
from tests.training import tiny
from training import progress
from training.evaluation import evaluate
from training.preset import Point
from training.progress import counting, progress_bar
from training.tasks import build_task


def test_log_gets_whole_lines_and_nothing_that_moves_a_cursor(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    with progress_bar(desc="run", total=20, initial=5, unit="seq", position=3, dynamic_ncols=True) as bar:
        bar.set_postfix_str("loss 0.5", refresh=False)
        bar.update(5)
        bar.update(10)
    lines = capsys.readouterr().err.splitlines(keepends=True)
    assert [line[:-1].partition(" seq,")[0] for line in lines[:3]] == [
        "run: 25%, 5 of 20",
        "run: 50%, 10 of 20",
        "run: 100%, 20 of 20",
    ]
    assert all(line[:-1].isprintable() for line in lines)


def test_log_of_fast_steps_has_a_first_and_last_line(capsys):
    with progress_bar(desc="run", total=10**4, unit="seq") as bar:
        for _ in range(10**4):
            bar.update(1)
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_counting_over_in_a_moment_logs_nothing(capsys):
    with counting("steps", "step") as tell:
        for done in range(300):
            tell(done + 1, 300)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("interval", "lines"), [(0.0, ["copy, length 2: 50%, 50 of 100", "copy, length 2: 100%, 100 of 100"]), (10.0, [])]
)
def test_long_measurement_logs_its_sequences(interval, lines, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", interval)
    tiny.checkpoint(tmp_path, "rnn")
    model, manifest = load(tmp_path)
    list(evaluate(model, build_task(manifest.task), [Point({"length": 2})], 100))
    logged = [line.partition(" sequence,")[0] for line in capsys.readouterr().err.splitlines()]
    assert [line for line in logged if not line.startswith("copy, length 2: 0%")] == lines


def test_rows_of_a_benchmark_are_logged_as_they_come(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    print_table("rows", Table("Rows", "Two.", ("number",), lambda plan: iter([(1,), (plan,)])), 2)
    printed = capsys.readouterr()
    assert printed.out.endswith("| 1 |\n| 2 |\n")
    assert [line.split(",")[0] for line in printed.err.splitlines()] == [f"rows: {done} row" for done in range(3)]


def test_terminal_shows_a_bar_that_ends_complete_and_is_cleared(tmp_path):
    script = (
        "from training.progress import counting\nwith counting('steps', 'step') as tell:\n    tell(1, 2); tell(2, 2)"
    )
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    os.set_blocking(ours, False)
    subprocess.run([sys.executable, "-c", script], stderr=theirs, check=True, cwd=tiny.ROOT)
    shown = os.read(ours, 10**5).decode()
    for end in (ours, theirs):
        os.close(end)
    assert "\rsteps:" in shown
    assert shown.rpartition("\r")[2].strip() == ""


@pytest.mark.slow
def test_training_into_a_file_leaves_few_plain_lines(tmp_path):
    preset = tiny.write_toml(tmp_path / "tiny.toml", updates=300)
    command = [sys.executable, "-m", "engram", "train", str(preset), "--out", str(tmp_path / "out")]
    with (tmp_path / "log").open("wb") as log:
        subprocess.run(command, stderr=log, stdout=subprocess.DEVNULL, check=True, cwd=tiny.ROOT)
    log = (tmp_path / "log").read_bytes()
    assert b"\r" not in log
    assert log.startswith(b"tiny, seed 1 (fused): 0%, 0 of 1200 seq, ")
    assert b"\ntiny, seed 1 (fused): 100%, 1200 of 1200 seq, " in log
