"""What `engram bench` prints, never how fast it was; and that nothing wrong is timed."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from app import cli
from benchmarks import served_steps
from benchmarks.kernels import TABLES, profile, profiled, serving, training
from benchmarks.kernels.floor import work
from benchmarks.kernels.sizes import SIZES, random_bits, random_model
from benchmarks.table import figure
from benchmarks.timing import WrongOutputs, check_close, medians
from models.kernels.fused import FusedStep
from models.kernels.library import library

ROOT = Path(__file__).parents[1]
BATCH = 16

ROWS = {
    "step": [f"S | {BATCH}", f"NTM | {BATCH}"],
    "arena": [f"S | {BATCH}"],
    "threads": [f"S | {BATCH}"],
    "calls": [f"S | {BATCH}", f"NTM | {BATCH}"],
    "training": [f"{model} | {BATCH} | {by}" for model in ("NTM", "DNC R=4", "DNC R=1") for by in ("fused", "torch")],
    "training-threads": [f"NTM | {BATCH}", f"DNC R=4 | {BATCH}"],
}
"""The labels of each table's rows, for S, NTM and one batch."""


def engram(*words):
    command = [sys.executable, "-m", "app.cli", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)


@pytest.fixture(scope="module")
def report():
    done = engram("bench", "kernels", "--quick", "--sizes", "S", "NTM", "--batches", BATCH)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.fixture
def threads():
    """Put the number of torch's threads back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


# The report


def test_report_says_what_was_run_and_on_what(report):
    first, second, _ = report.splitlines()[:3]
    assert first.startswith(f"`engram bench kernels --quick --sizes S NTM --batches {BATCH}` on ")
    assert f"torch {torch.__version__.split('+')[0]}, " in second


@pytest.mark.parametrize("name", TABLES)
def test_table_has_its_heading_and_a_row_for_each_case(report, name):
    head = TABLES[name].head()
    assert head in report
    body = report.split(head)[1].lstrip("\n").split("\n\n")[0].splitlines()
    assert [row for row, label in zip(body, ROWS[name], strict=True) if row.startswith(f"| {label} | ")] == body
    assert all(row.count(" | ") + 1 == len(TABLES[name].columns) for row in body)
    assert all(re.fullmatch(r"[\d,]+(\.\d+)?", cell) for row in body for cell in row.strip("| ").split(" | ")[3:])


def test_profile_without_perf_is_refused(monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")
    words = ["bench", "kernels", "--quick", "--tables", "calls", "--sizes", "S", "--batches", "1", "--profile"]
    assert cli.main(words) == 1
    assert capsys.readouterr().err == "engram: --profile needs Linux's perf, which is not installed\n"


@pytest.mark.parametrize("case", profile.CASES)
def test_profiled_case_runs(case):
    assert profiled.prepared(case, library())() is not None


def test_performance_page_has_every_table_as_it_is_printed_now():
    page = (ROOT / "docs" / "performance.md").read_text()
    printed = page.split("<!-- engram bench kernels -->")[1].split("<!-- end -->")[0]
    assert all(table.head() in printed for table in TABLES.values())
    assert all(f"| {size} | 64 | " in printed for size in SIZES)


@pytest.mark.parametrize(
    ("value", "shown"), [(3, "3"), (1234567.8, "1,234,568"), (99.94, "99.9"), (9.994, "9.99"), (0.051, "0.05")]
)
def test_figure_has_the_digits_that_count(value, shown):
    assert figure(value) == shown


def test_served_steps_prints_a_row_for_each_number_of_sessions():
    done = engram("bench", "served-steps", "--sessions", 1, 3, "--seconds", 0.05, "--rounds", 1)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[2:]] == ["sessions", "1", "3"]


# Nothing wrong is timed


def test_outputs_within_the_tolerance_pass():
    check_close("it", np.array([2.0, 1.0]), np.array([2.0, 1.0 + 1e-5]), 1e-4)
    check_close("it", np.zeros(3), np.zeros(3), 0.0)


@pytest.mark.parametrize(
    "wrong", [np.array([2.0, 1.1]), np.array([2.0, np.nan]), np.array([2.0]), np.array([[2.0, 1.0]])]
)
def test_wrong_outputs_are_refused(wrong):
    with pytest.raises(WrongOutputs, match="not timed, it: expected"):
        check_close("it", wrong, np.array([2.0, 1.0]), 1e-4)


def test_last_bit_is_wrong_where_the_same_bits_are_due():
    one = np.ones(1, np.float32)
    with pytest.raises(WrongOutputs):
        check_close("it", np.nextafter(one, 2 * one), one, 0.0)


def test_step_that_goes_wrong_after_a_while_is_refused():
    taken = iter(range(serving.CHECKED_STEPS))
    steps = {"right": lambda inputs: inputs, "wrong": lambda inputs: inputs + (next(taken) == 7)}
    with pytest.raises(WrongOutputs, match="S at batch 3: outputs by wrong beside those by right"):
        serving.check_steps("S at batch 3", steps, 3, serving.TOLERANCE)


def test_wrong_gradient_is_refused():
    model = random_model(training.MODELS["DNC R=1"])
    right = training.by_autograd(model)
    training.check_gradients("it", model, training.by_kernels(model, 1), right, 2, training.TOLERANCE)
    with pytest.raises(WrongOutputs, match="gradient of "):
        training.check_gradients("it", model, lambda inputs: 1.01 * right(inputs), right, 2, training.TOLERANCE)


def test_command_stops_at_wrong_outputs_before_it_prints_a_time(monkeypatch, capsys, threads):
    monkeypatch.setattr(FusedStep, "run", lambda self, slots, inputs: np.zeros((*inputs.shape[:2], 9)))
    assert cli.main(["bench", "kernels", "--quick", "--tables", "calls"]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("engram: not timed, S at batch 1: outputs of 16 steps in a call: expected")
    assert printed.out.endswith("|---|---|---|---|---|\n")


# What is timed


def test_candidates_take_turns_and_the_median_is_of_calls():
    called = []
    times = medians({name: lambda name=name: called.append(name) for name in "ab"}, rounds=3, seconds=0.0)
    assert called == ["a", "b"] * 4  # once to warm up
    assert times.keys() == {"a", "b"}


def test_work_of_a_dnc_is_that_of_its_links_memory_weightings_and_matrices():
    n, w, r, hidden, batch = 128, 32, 4, 128, 3
    seen, told = 9 + r * w + hidden, r * w + 3 * w + 5 * r + 3
    products = 4 * hidden * seen + hidden * told + (hidden + r * w) * 9
    expected = 2 * products * batch, (8 * n * n + 8 * n * w + 8 * (3 + r) * n) * batch
    assert work(random_model(SIZES["M"]), batch) == expected


def test_work_of_an_ntm_is_that_of_its_memory_weightings_and_matrices():
    n, w, hidden = 128, 20, 100
    products = 4 * hidden * (9 + w + hidden) + hidden * (2 * (w + 3 + 3) + 2 * w) + (hidden + w) * 9
    assert work(random_model(SIZES["NTM"]), 1) == (2 * products, 8 * n * w + 8 * 2 * n)


def test_models_and_inputs_are_the_same_at_every_call():
    first, second = (random_model(SIZES["S"]).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert np.array_equal(random_bits(5, 9), random_bits(5, 9))


# The command line


def test_command_line_offers_what_there_is():
    assert tuple(TABLES) == cli.KERNEL_TABLES
    assert tuple(SIZES) == cli.KERNEL_SIZES
    assert set(cli.SERVED_BACKENDS) == set(served_steps.BACKENDS)


def test_missing_public_implementation_is_told_before_anything_is_measured(tmp_path, capsys, threads):
    assert cli.main(["bench", "kernels", "--peers", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert "git clone https://github.com/loudinthecloud/pytorch-ntm" in printed.err
    assert printed.out == ""


def test_missing_extra_is_told_in_one_line():
    without_torch = "import sys; sys.modules['torch'] = None; from app.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", without_torch, "bench", "kernels"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    assert re.fullmatch(
        r"engram: .*torch.*: this command needs more packages: pip install 'engram\[train\]'\n", done.stderr
    )


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "long"])
def test_time_that_is_none_is_a_mistake_that_names_the_option(value, capsys):
    with pytest.raises(SystemExit):
        cli.main(["bench", "kernels", f"--seconds={value}"])
    assert f"argument --seconds: expected a number of seconds above 0, got '{value}'" in capsys.readouterr().err
