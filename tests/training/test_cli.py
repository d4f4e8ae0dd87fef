"""The command line as it is typed: the way from a preset to a served model, its help, and its complaints."""

import json
import re
import subprocess
import sys

import pytest
import torch

from app import cli
from app.settings import Settings
from models.manifest import MANIFEST_FILE, ONNX_FILE, WEIGHTS_FILE, read_manifest
from tests.commands import commands
from tests.training import tiny
from training.checkpoint import TRAINING_FILE
from training.config import preset_names

OPTIONS = {
    "train": [
        "preset",
        "--out",
        "--resume",
        "--seed",
        "--updates",
        "--device",
        "--threads",
        "--unroll",
        "--save-every",
    ],
    "evaluate": ["DIR", "--lengths", "--sequences", "--memory-size", "--seed", "--threads", "--device", "--save"],
    "export": ["DIR"],
    "import": ["FILE", "--format", "--out", "--cell"],
    "card": ["DIR"],
    "bench": ["NAME"],
    "bench kernels": ["--tables", "--sizes", "--batches", "--rounds", "--seconds", "--peers", "--profile", "--quick"],
    "bench served-steps": ["--checkpoints", "--model", "--sessions", "--backend", "--rounds", "--seconds"],
    "serve": ["--config", *(f"--{name.replace('_', '-')}" for name in Settings.model_fields)],
}

no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")


def engram(*words):
    """Run `engram` in a process of its own."""
    command = [sys.executable, "-m", "app.cli", *map(str, words)]
    return subprocess.run(command, cwd=tiny.ROOT, capture_output=True, text=True, timeout=100)


def complaint(done):
    """Return the one line of a command that failed as it should."""
    assert done.returncode == 1, done
    assert done.stderr.startswith("engram: ")
    assert done.stderr.count("\n") == 1
    return done.stderr.strip()


def complaint_in_process(capsys, *words):
    """Return the one line of a command that failed as it should, run in this process."""
    assert cli.main(list(map(str, words))) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("engram: ")
    assert printed.count("\n") == 1
    return printed.strip()


@pytest.fixture
def checkpoint(tmp_path):
    tiny.checkpoint(tmp_path / "out", updates=3)
    return tmp_path / "out"


# The way


def test_preset_becomes_a_measured_exported_and_described_model(tmp_path):
    preset, out = tiny.write_toml(tmp_path / "tiny.toml"), tmp_path / "out"
    trained = engram("train", preset, "--out", out, "--seed", 4, "--updates", 20)
    assert trained.returncode == 0, trained.stderr
    assert f"{out}: 20 updates, 80 sequences, weights in model.safetensors" in trained.stdout
    assert f"Next: engram evaluate {out}    engram export {out}" in trained.stdout

    evaluated = engram("evaluate", out, "--lengths", 1, 3, "--sequences", 60, "--save")
    assert evaluated.returncode == 0, evaluated.stderr
    table = [line.split() for line in evaluated.stdout.splitlines()[2:]]
    assert [(length, bits, wrong.partition("/")[2]) for length, _, bits, wrong in table] == [
        ("1", "2", "60"),
        ("3", "6", "60"),
    ]

    exported = engram("export", out)
    assert exported.returncode == 0, exported.stderr
    assert f"{out / ONNX_FILE}: {(out / ONNX_FILE).stat().st_size:,} bytes" in exported.stdout

    assert engram("card", out).stdout == f"{out / 'README.md'}\n"
    card, manifest = (out / "README.md").read_text(), read_manifest(out)
    assert f"\n    engram train {preset} --out {out} --seed 4 --updates 20\n" in card
    assert f"\n    engram evaluate {out} --lengths 1 3 --sequences 60\n" in card
    assert [f"{row['errors_per_sequence']:.4g}" for row in manifest.evaluation] == [row[1] for row in table]
    names = {MANIFEST_FILE, WEIGHTS_FILE, TRAINING_FILE, ONNX_FILE, "README.md", "weightings.png"}
    assert {path.name for path in out.iterdir()} == names


def test_command_in_the_record_is_the_one_that_starts_the_run_wherever_the_flag_stood(tmp_path, capsys):
    preset, out = str(tiny.write_toml(tmp_path / "tiny.toml")), str(tmp_path / "out")
    assert cli.main(["train", preset, "--out", out]) == 0
    assert cli.main(["train", "--resume", preset, "--out", out]) == 0
    assert read_manifest(tmp_path / "out").training["command"] == f"engram train {preset} --out {out}"
    assert cli.main(["evaluate", "--save", out, "--lengths", "2", "--sequences", "5"]) == 0
    (row,) = read_manifest(tmp_path / "out").evaluation
    assert row["command"] == f"engram evaluate {out} --lengths 2 --sequences 5"


def test_evaluation_without_save_changes_nothing(checkpoint, capsys):
    before = (checkpoint / MANIFEST_FILE).read_bytes()
    assert cli.main(["evaluate", str(checkpoint), "--lengths", "1", "--sequences", "5"]) == 0
    assert (checkpoint / MANIFEST_FILE).read_bytes() == before
    assert re.search(r"^ +1 +[\d.]+ +2 +\d/5$", capsys.readouterr().out, re.MULTILINE)


def test_evaluation_with_another_memory_size_is_recorded_beside_the_first(tmp_path, capsys):
    tiny.checkpoint(tmp_path, "ntm")
    words = ["evaluate", str(tmp_path), "--lengths", "2", "--sequences", "5", "--save"]
    assert cli.main(words) == 0
    assert cli.main([*words, "--memory-size", "16"]) == 0
    assert [row["memory_size"] for row in read_manifest(tmp_path).evaluation] == [8, 16]
    assert "memory slots: 16" in capsys.readouterr().out


def test_seed_of_the_evaluation_draws_other_sequences(tmp_path, capsys):
    tiny.checkpoint(tmp_path)
    printed = []
    for seed in ([], [], ["--seed", "5"]):
        cli.main(["evaluate", str(tmp_path), "--lengths", "3", "--sequences", "100", *seed])
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] != printed[2]


# Help


def test_help_names_every_command():
    done = engram("--help")
    assert done.returncode == 0
    assert all(re.search(rf"^    {command.split()[0]} ", done.stdout, re.MULTILINE) for command in OPTIONS)


@pytest.mark.parametrize("command", OPTIONS)
def test_help_of_a_command_explains_every_option(command):
    done = engram(*command.split(), "--help")
    assert done.returncode == 0
    _, _, explained = done.stdout.partition("\n\n")
    for option in OPTIONS[command]:
        assert re.search(rf"^  (-h, )?{option}\b.*\n?\s+\S", explained, re.MULTILINE), option
    assert done.stdout.isascii()


def test_no_option_is_missing_from_this_list():
    parsers = {parser.prog.removeprefix("engram "): parser for parser in commands(cli._parser())}
    assert set(parsers) == set(OPTIONS)
    for command, parser in parsers.items():
        names = [action.option_strings or [action.metavar or action.dest] for action in parser._actions]
        assert {strings[0] for strings in names} == {"-h", *OPTIONS[command]}


def test_no_command_is_a_mistake_that_shows_the_usage():
    done = engram()
    assert done.returncode == 2
    assert done.stderr.startswith("usage: engram ")


# Complaints


def test_missing_directory_is_told_in_one_line(tmp_path):
    told = complaint(engram("export", tmp_path / "nowhere"))
    assert f"{tmp_path / 'nowhere' / MANIFEST_FILE}: No such file or directory" in told


@pytest.mark.parametrize("command", ["evaluate", "export", "card"])
def test_directory_without_a_checkpoint_is_told_in_one_line(tmp_path, capsys, command):
    told = complaint_in_process(capsys, command, tmp_path)
    assert told.endswith(
        f"{MANIFEST_FILE}: No such file or directory; a checkpoint is a directory with a {MANIFEST_FILE}"
    )


def test_unknown_preset_is_told_in_one_line_with_those_that_there_are(tmp_path):
    told = complaint(engram("train", "dnc-sort", "--out", tmp_path / "out"))
    assert "no preset 'dnc-sort'" in told
    assert all(name in told for name in preset_names())
    assert not (tmp_path / "out").exists()


@no_cuda
def test_training_on_a_device_that_is_not_there_is_told_in_one_line(tmp_path):
    told = complaint(engram("train", "dnc-copy", "--out", tmp_path / "out", "--device", "cuda"))
    assert told == "engram: device cuda was asked for, but torch sees no CUDA device here"
    assert not (tmp_path / "out").exists()


@no_cuda
def test_evaluating_on_a_device_that_is_not_there_is_told_in_one_line(checkpoint, capsys):
    assert "no CUDA device" in complaint_in_process(capsys, "evaluate", checkpoint, "--device", "cuda")


def test_bad_value_in_a_preset_is_told_in_one_line(tmp_path, capsys):
    preset = tiny.write_toml(tmp_path / "tiny.toml", updates="many")
    told = complaint_in_process(capsys, "train", preset, "--out", tmp_path / "out")
    assert told == "engram: training.updates: expected int, got 'many'"


def test_directory_that_holds_a_run_is_told_in_one_line(tmp_path, checkpoint, capsys):
    preset = tiny.write_toml(tmp_path / "tiny.toml")
    told = complaint_in_process(capsys, "train", preset, "--out", checkpoint)
    assert told == f"engram: {checkpoint} holds a training run: go on with it (--resume) or give another --out"


def test_resuming_nothing_and_resuming_another_run_are_told_in_one_line(tmp_path, checkpoint, capsys):
    preset = tiny.write_toml(tmp_path / "tiny.toml")
    nothing = complaint_in_process(capsys, "train", preset, "--out", tmp_path / "nowhere", "--resume")
    assert "there is no training run to resume here" in nothing
    other = complaint_in_process(capsys, "train", preset, "--out", checkpoint, "--resume", "--seed", 9)
    assert "training.seed = 1, but 9 was asked for" in other


def test_weights_that_do_not_fit_are_told_in_one_line(checkpoint, capsys):
    manifest = checkpoint / MANIFEST_FILE
    values = json.loads(manifest.read_text())
    values["config"]["controller"]["hidden_size"] = 9
    manifest.write_text(json.dumps(values))
    assert "size mismatch" in complaint_in_process(capsys, "evaluate", checkpoint)


def test_memory_that_is_not_there_cannot_be_resized(checkpoint, capsys):
    told = complaint_in_process(capsys, "evaluate", checkpoint, "--memory-size", 16)
    assert "memory_size 16 was asked for, but an RNN has no memory to resize" in told


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("train", "--save-every"),
        ("train", "--threads"),
        ("evaluate", "--lengths"),
        ("evaluate", "--sequences"),
        ("evaluate", "--memory-size"),
    ],
)
@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_number_below_one_is_a_mistake_that_names_the_option(tmp_path, capsys, command, option, value):
    words = {"train": ["train", "dnc-copy", "--out", str(tmp_path)], "evaluate": ["evaluate", str(tmp_path)]}
    with pytest.raises(SystemExit) as stopped:
        cli.main([*words[command], f"{option}={value}"])
    assert stopped.value.code == 2
    assert f"argument {option}: expected a whole number of at least 1, got '{value}'" in capsys.readouterr().err


def test_imported_cell_becomes_an_exported_checkpoint(tmp_path):
    file = tiny.ROOT / "tests" / "reference" / "tf_rnn_cells.npz"
    done = engram("import", "--format", "tf-rnn-cell", file, "--cell", "gru", "--out", tmp_path / "gru")
    assert "198 parameters imported" in done.stdout
    assert {path.name for path in (tmp_path / "gru").iterdir()} == {"manifest.json", "model.safetensors", "model.onnx"}


def test_import_without_the_cell_it_needs_is_told_in_one_line(tmp_path):
    file = tiny.ROOT / "tests" / "reference" / "tf_rnn_cells.npz"
    done = engram("import", "--format", "tf-rnn-cell", file, "--out", tmp_path / "cell")
    assert "--cell takes one of basic_lstm, basic_rnn, gru" in complaint(done)
