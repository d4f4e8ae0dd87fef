"""The command line as it is typed: from a preset to a served model, its help, and its errors."""

import re
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from app.settings import Settings
from benchmarks.peers import recipe
from engram import main as cli
from models.manifest import MANIFEST_FILE, ONNX_FILE, WEIGHTS_FILE, read_manifest
from tests.commands import commands, names
from tests.engram.running import complaint, done, engram
from tests.training import tiny
from training.files import TRAINING_FILE
from training.run_metrics import METRICS_FILE

HOW_TO_TRAIN = ["--jobs", "--device", "--threads", "--unroll", "--save-every", "--tensorboard"]

SERVER = ["--url", "--key", "--timeout"]

SETTINGS = [f"--{name.replace('_', '-')}" for name in Settings.model_fields]

OPTIONS = {
    "train": [
        "PRESET",
        "--set",
        "--tasks",
        "--models",
        "--out",
        "--resume",
        "--init-from",
        "--seed",
        "--seeds",
        "--updates",
        *HOW_TO_TRAIN,
        "--json",
    ],
    "zoo": [
        "PRESET",
        "--set",
        "--tasks",
        "--models",
        "--out",
        "--runs",
        "--seeds",
        "--sequences",
        *HOW_TO_TRAIN,
        "--json",
    ],
    "evaluate": [
        "DIR",
        "--all",
        "--at",
        "--sequences",
        "--memory-size",
        "--seed",
        "--set",
        "--threads",
        "--device",
        "--save",
        "--tasks",
        "--models",
        "--json",
    ],
    "plot": ["DIR", "--out", "--tasks", "--models"],
    "export": ["DIR", "--models"],
    "import": ["FILE", "--format", "--out", "--spec", "--guess", "--cell", "--task", "--tasks"],
    "card": ["DIR", "--license", "--tasks"],
    "push": ["DIR", "TO", "--hub", "--private"],
    "pull": ["FROM", "--out", "--name", "--sha256", "--hub"],
    "docs": ["--out", "--port"],
    "models": ["DIR", "--json"],
    "bench": [],
    "bench kernels": [
        "--tables",
        "--sizes",
        "--batches",
        "--rounds",
        "--seconds",
        "--peers",
        "--profile",
        "--quick",
        "--json",
    ],
    "bench training": ["--batches", "--updates", "--rounds", "--seconds", "--peers", "--quick", "--json"],
    "bench serve": [
        "--checkpoints",
        "--model",
        "--paths",
        "--connections",
        "--durability",
        "--rounds",
        "--seconds",
        "--open-loop",
        "--triton",
        "--before",
        "--idle",
        "--json",
        "--plot",
        "--data-root",
    ],
    "bench graphs": [
        "--checkpoints",
        "--models",
        "--connections",
        "--durability",
        "--rounds",
        "--seconds",
        "--data-root",
        "--json",
    ],
    "bench peers": [
        "--packages",
        "--checkpoints",
        "--model",
        "--connections",
        "--durability",
        "--rounds",
        "--seconds",
        "--open-loop",
        "--triton",
        "--before",
        "--json",
        "--plot",
        "--data-root",
    ],
    "bench served-steps": ["--checkpoints", "--model", "--sessions", "--backend", "--rounds", "--seconds", "--json"],
    "bench durability": ["--checkpoints", "--data-root", "--model", "--sessions", "--rounds", "--seconds", "--json"],
    "bench sessions": ["--checkpoints", "--data-root", "--model", "--sessions", "--max-resident", "--json"],
    "bench gpu": [
        *("--tables", "--sizes", "--batches", "--training-batch", "--rounds", "--seconds", "--limit", "--no-compile"),
        *("--device", "--json"),
    ],
    "bench fairness": ["--checkpoints", "--model", "--neighbour", "--requests", "--rounds", "--data-root", "--json"],
    "presets": ["PRESET", "--checkpoints", "--json"],
    "infer": ["MODEL", "--input", "--trace", "--memory-size", "--format", "--checkpoints", *SERVER],
    "sessions": [],
    "sessions list": ["--model", "--limit", *SERVER, "--json"],
    "sessions show": ["ID", *SERVER, "--json"],
    "sessions open": ["MODEL", "--memory-size", *SERVER, "--json"],
    "sessions step": ["ID", "--input", "--trace", "--format", *SERVER],
    "sessions fork": ["ID", "--step", "--model", *SERVER, "--json"],
    "sessions rewind": ["ID", "STEP", *SERVER],
    "sessions record": ["ID", "--from", "--to", "--trace", *SERVER],
    "sessions delete": ["ID", *SERVER],
    "keys": [],
    "keys create": [
        *("--data", "--store", "--config", "--tenant", "--scopes", "--name"),
        *("--max-sessions", "--steps-per-second", "--max-batch", "--max-steps", "--max-streams"),
    ],
    "keys list": ["--data", "--store", "--config", "--json"],
    "keys revoke": ["ID", "--data", "--store", "--config"],
    "store": [],
    "store copy": ["FROM", "TO"],
    "store migrate": ["PLACE", "--config"],
    "store status": ["PLACE", "--config", "--json"],
    "check": ["--data", "--store", "--json"],
    "isolate": [
        "MODEL",
        "--all",
        "--checkpoints",
        "--backend",
        "--sessions",
        "--steps",
        "--seed",
        "--markdown",
        "--json",
    ],
    "doctor": ["--config", *SETTINGS, "--json"],
    "serve": ["FROM", "--hub", "--servers", "--config", *SETTINGS],
}


@pytest.mark.slow
def test_preset_becomes_a_measured_drawn_exported_and_described_model(tmp_path, capsys):
    preset, out = tiny.write_toml(tmp_path / "tiny.toml"), tmp_path / "out"
    printed = done(capsys, "train", preset, "--out", out, "--seed", 4, "--updates", 20, "--set", "task.length=[1,2]")
    assert f"{out}: 20 updates, 80 sequences, weights in model.safetensors" in printed
    assert f"Next: engram evaluate {out}    engram plot {out}    engram export {out}" in printed

    measuring = ["evaluate", out, "--at", "length=1", "--at", "length=[1,3]", "--sequences", 60]
    table = [line.split() for line in done(capsys, *measuring, "--save").splitlines()[2:]]
    assert [(row[:-5], row[-2].partition("/")[2]) for row in table] == [
        (["length", "1"], "60"),
        (["length", "1", "to", "3"], "60"),
    ]
    exported = done(capsys, "export", out)
    assert exported.startswith(f"{out / ONNX_FILE}: ")
    assert exported.endswith(f"\nNext: engram serve --checkpoints {tmp_path}\n")
    assert str(out / "learning.png") in done(capsys, "plot", out)
    assert done(capsys, "card", out) == f"{out / 'README.md'}\n"

    card, manifest = (out / "README.md").read_text(), read_manifest(out)
    assert f"\n    engram train {preset} --out {out} --seed 4 --updates 20 --set 'task.length=[1,2]'\n" in card
    assert f"\n    {shlex.join(['engram', *map(str, measuring)])}\n" in card
    assert [f"{row['errors']:.4g}" for row in manifest.evaluation] == [row[-4] for row in table]
    files = {MANIFEST_FILE, WEIGHTS_FILE, TRAINING_FILE, METRICS_FILE, ONNX_FILE, "README.md"}
    assert files < {path.name for path in out.iterdir()}


def test_command_on_record_leaves_out_switches_wherever_they_stand(tmp_path, capsys):
    preset, out = str(tiny.write_toml(tmp_path / "tiny.toml")), str(tmp_path / "out")
    done(capsys, "train", preset, "--out", out)
    done(capsys, "train", "--resume", preset, "--out", out)
    assert read_manifest(tmp_path / "out").training["command"] == f"engram train {preset} --out {out}"
    done(capsys, "evaluate", "--save", out, "--json", "--at", "length=2", "--sequences", 5)
    (row,) = read_manifest(tmp_path / "out").evaluation
    assert row["command"] == f"engram evaluate {out} --at length=2 --sequences 5"


@pytest.mark.slow
def test_printed_commands_can_be_typed_as_they_stand(tmp_path, capsys, monkeypatch):
    (tmp_path / "it's here").mkdir()
    monkeypatch.chdir(tmp_path / "it's here")
    tiny.write_toml(Path("a b.toml"), updates=2)
    own = ["--tasks", str(tiny.ROOT / "examples" / "own_task.py")]
    printed = done(capsys, "train", "a b.toml", "--out", "my run/one", *own)
    for command in re.search(r"^Next: (.*)$", printed, re.MULTILINE)[1].split("    "):
        program, *words = shlex.split(command)
        assert program == "engram"
        printed = done(capsys, *words)
    assert printed.endswith("\nNext: engram serve --checkpoints 'my run'\n")
    assert recipe(Path("my run")).splitlines()[-1].split(" ", 4)[4] == "'my run'/dnc-1.1.0 dnc==1.1.0"


def ended(capsys, *words):
    """Return the exit status of a command line, and what it printed."""
    return cli.main(list(words)), *capsys.readouterr()


def test_version_is_printed(capsys):
    assert ended(capsys, "--version") == (0, f"engram {metadata.version('engram')}\n", "")


def test_help_names_every_command():
    done = engram("--help")
    assert done.returncode == 0
    assert all(re.search(rf"^  {command.split()[0]} ", done.stdout, re.MULTILINE) for command in OPTIONS)


@pytest.mark.parametrize("command", OPTIONS)
def test_help_of_a_command_explains_every_option(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    status, printed, _ = ended(capsys, *command.split(), "--help")
    assert status == 0
    _, _, explained = printed.partition("\n\n")
    for option in OPTIONS[command]:
        assert re.search(rf"^  (-h, )?{option}\b.*\n?\s+\S", explained, re.MULTILINE), option
    assert printed.isascii()


def test_no_option_is_missing_from_this_list():
    found = {name.removeprefix("engram "): set(names(command)) for name, command in commands()}
    assert found == {command: set(options) for command, options in OPTIONS.items()}


def test_no_command_is_a_mistake_that_shows_the_usage(capsys):
    status, _, printed = ended(capsys)
    assert status == 2
    assert printed.startswith("Usage: engram ")


@pytest.mark.parametrize("command", ["evaluate", "export", "card"])
def test_directory_without_a_checkpoint_is_an_error(tmp_path, capsys, command):
    message = complaint(capsys, command, tmp_path)
    assert message.endswith(
        f"{MANIFEST_FILE}: No such file or directory; a checkpoint is a directory with a {MANIFEST_FILE}"
    )


def test_command_line_starts_without_torch_and_the_server():
    script = "import sys; from engram.main import main; main(['--help']); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tiny.ROOT)
    heavy = {"torch", "numpy", "onnxruntime", "matplotlib", "fastapi", "uvicorn", "pydantic", "models", "benchmarks"}
    rooms = {"app", "training", "engram_client", "engram.commands.train"}
    assert (heavy | rooms).isdisjoint(loaded.stdout.splitlines()[-1].split())
