"""`engram bench gpu`, with a CPU in place of a card: its rows, never its times; and that nothing wrong is timed."""

import re
import subprocess
import sys
from importlib.metadata import packages_distributions, requires
from unittest.mock import Mock

import pytest

pytest.importorskip("triton", reason="Triton is for Linux")

from app.backends.torch import TorchBackend
from benchmarks.gpu import TABLES, checks, run, served
from benchmarks.gpu.checks import ROOT
from benchmarks.kernels.sizes import WIDTH, random_bits, save
from benchmarks.load import LoadFailed
from benchmarks.timing import WrongOutputs
from tests.engram.running import complaint, no_cuda

pytestmark = pytest.mark.slow


def rows_of(printed: str, name: str) -> list[list[str]]:
    """Return the cells of the rows of a table."""
    part = printed.split(f"### {TABLES[name].title}\n")[1].split("\n### ")[0]
    return [re.split(r"\s*\|\s*", line.strip("| ")) for line in part.splitlines() if line.startswith("| ")][1:]


def test_device_is_checked_beside_the_cpu_and_then_measured(capsys):
    run(list(TABLES), ["S"], [1, 8], 2, 1, 0.001, 200.0, False, "cpu", "it")
    printed = capsys.readouterr().out
    outcomes = dict(rows_of(printed, "checks"))
    assert outcomes["a session of a server on the device"] == "agrees with the CPU"
    assert [outcome.split(",")[0] for what, outcome in outcomes.items() if "outputs" in what] == ["agree"] * 2
    assert [row[:3] for row in rows_of(printed, "training")] == [
        [model, "2", by] for model in ("NTM", "DNC R=1") for by in ("fused, one core", "torch")
    ]
    measured = rows_of(printed, "rates")
    assert [row[:2] for row in measured] == [["S", "1"], ["S", "8"]]
    assert all(float(row[8].replace(",", "")) > 0 for row in measured)
    [loaded] = rows_of(printed, "served")
    assert loaded[:2] == ["S", "4"]
    assert all(float(figure.replace(",", "")) > 0 for figure in loaded[2:7])
    assert loaded[7] == ("back end" if float(loaded[5]) >= 100 * served.BUSY else "CPU")


def test_rows_that_find_the_time_over_say_so(capsys):
    names = ["training", "rates", "served"]
    run(names, ["S"], [1, 8], 2, 1, 0.001, 0.0, False, "cpu", "it")
    printed = capsys.readouterr().out
    assert {row[-1] for name in names for row in rows_of(printed, name)} == {"the time was over"}


@pytest.mark.parametrize("error", [ImportError("No module named 'uvicorn'"), LoadFailed("no C compiler")])
def test_server_that_cannot_be_loaded_says_why_in_its_row(capsys, monkeypatch, error):
    monkeypatch.setattr(served, "rows", Mock(side_effect=error))
    run(["served"], ["S"], [1], 2, 1, 0.001, 200.0, False, "cpu", "it")
    assert rows_of(capsys.readouterr().out, "served") == [["S", *["-"] * 7, f"not run: {error}"]]


def test_device_that_computes_something_else_is_not_timed(tmp_path, monkeypatch):
    save("S", tmp_path)
    here, there = (TorchBackend(tmp_path, 4) for _ in range(2))
    step = there.step
    monkeypatch.setattr(there, "step", lambda slots, inputs: (step(slots, inputs)[0] + 0.1, {}))
    with pytest.raises(WrongOutputs, match="S: outputs on the device beside those on the CPU"):
        checks.outputs_agree("S", here, there, random_bits(3, 2, WIDTH))


def test_machine_without_triton_is_told_how_to_get_it(capsys, monkeypatch):
    monkeypatch.setattr("kernels.gpu.support.find_spec", lambda _: None)
    message = complaint(capsys, "bench", "gpu", "--device", "cpu")
    assert message.endswith(
        "Triton is not installed, which comes with torch for CUDA; elsewhere, on Linux: pip install triton"
    )


@no_cuda
def test_device_that_is_not_there_is_named(capsys):
    assert "torch sees no CUDA device here" in complaint(capsys, "bench", "gpu")


def test_benchmark_needs_few_packages():
    imported = "import sys, benchmarks.gpu; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", imported], cwd=ROOT, capture_output=True, text=True, check=True)
    modules = set(done.stdout.split())
    assert modules & module_names(requires("engram")) <= {"torch", "torchgen", "numpy", "safetensors", "tqdm"}


def module_names(requirements):
    """Return the names of the modules of packages that are installed."""
    packages = {re.split(r"[\s<>=!~;\[]", each)[0] for each in requirements}
    return {module for module, owners in packages_distributions().items() if packages & set(owners)}
