"""Engram's packages are found although the caller's directory has others of the same names."""

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

import engram
from app.api.decoders import LARGE
from tests.app.harness import CHECKPOINTS, ROOT, running_server
from tests.training import tiny

pytestmark = pytest.mark.slow

PROGRAMS = {
    "script": [str(Path(sys.executable).with_name("engram"))],
    "module": [sys.executable, "-m", "engram"],
}


@pytest.fixture
def elsewhere(tmp_path):
    """Return a directory with a package or a script for each name of Engram's, which fail when they are imported."""
    for number, name in enumerate(engram.ROOMS):
        path = tmp_path / "own" / (f"{name}/__init__.py" if number % 2 else f"{name}.py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"raise RuntimeError({f'the {name} of the caller'!r})\n")
    return tmp_path / "own"


def run(command, directory):
    """Run a command in a directory that is on PYTHONPATH too, and return what it printed."""
    words, environment = list(map(str, command)), os.environ | {"PYTHONPATH": str(directory)}
    done = subprocess.run(words, cwd=directory, env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_rooms_are_all_packages_of_the_wheel_but_this():
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages - {"tests"} == {*engram.ROOMS, "engram"}


@pytest.mark.parametrize("program", PROGRAMS)
def test_command_beside_packages_of_its_names_runs(elsewhere, program):
    assert "dnc-copy" in run([*PROGRAMS[program], "models", CHECKPOINTS], elsewhere)


@pytest.mark.parametrize("program", PROGRAMS)
def test_server_beside_packages_of_its_names_decodes_large_requests(elsewhere, few, tmp_path, program):
    document = {"model": "lstm-copy", "inputs": [[0.123456789] * 10] * 1000}
    server = {"checkpoints": few, "root": elsewhere, "program": PROGRAMS[program], "PYTHONPATH": str(elsewhere)}
    with running_server(data=tmp_path / "data", **server) as running:
        answer = httpx.post(f"{running.url}/infer", json=document, timeout=60)
        assert int(answer.request.headers["Content-Length"]) > LARGE
        assert (answer.status_code, answer.json()["steps"]) == (200, 1000), running.log


@pytest.mark.parametrize("program", PROGRAMS)
def test_seeds_beside_packages_of_its_names_are_trained(elsewhere, tmp_path, program):
    preset = tiny.write_toml(tmp_path / "tiny.toml", updates=2)
    words = ["train", preset, "--out", tmp_path / "out", "--seeds", 1, 2, "--jobs", 2]
    run([*PROGRAMS[program], *words], elsewhere)
    assert all((tmp_path / "out" / f"seed-{seed}" / "model.safetensors").exists() for seed in (1, 2))


def test_benchmark_beside_packages_of_its_names_starts_its_server(elsewhere, few):
    words = ["bench", "served-steps", "--checkpoints", few, "--model", "lstm-copy", "--sessions", 1, "--rounds", 1]
    printed = run([*PROGRAMS["script"], *words, "--seconds", 0.05], elsewhere)
    assert re.search(r"^\| 1 \| [\d,]+ ", printed, re.MULTILINE)


def test_module_of_a_room_runs_with_its_arguments(elsewhere):
    printed = run([sys.executable, "-m", "engram.room", "kernels.build", "--help"], elsewhere)
    assert printed.startswith("usage: python -m kernels.build [-h] [--if-changed]")


def test_other_names_are_the_callers(elsewhere):
    (elsewhere / "tasks.py").write_text("print('of the caller')\n")
    assert run([sys.executable, "-c", "import engram, tasks"], elsewhere) == "of the caller\n"


def test_package_is_imported_without_what_takes_long():
    command = [sys.executable, "-c", "import sys, engram; print(*sys.modules)"]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
    assert {*engram.ROOMS, "torch", "numpy", "pydantic", "argparse"}.isdisjoint(loaded)
