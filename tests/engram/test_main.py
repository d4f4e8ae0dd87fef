"""The command line as it is typed: the way from a preset to a served model, its help, and its complaints."""

import json
import re
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch

from app.settings import Settings
from benchmarks.peers import recipe
from engram import main as cli
from models.manifest import MANIFEST_FILE, ONNX_FILE, WEIGHTS_FILE, read_manifest
from tests.commands import commands
from tests.training import tiny
from tests.training.tasks.situations import write_stories
from training.checkpoint import TRAINING_FILE, resume, save_checkpoint
from training.preset import preset_from_values, preset_names
from training.run_metrics import METRICS_FILE
from training.trainer import Trainer

HOW_TO_TRAIN = ["--jobs", "--device", "--threads", "--unroll", "--save-every", "--tensorboard"]

OPTIONS = {
    "train": [
        "preset",
        "--set",
        "--tasks",
        "--out",
        "--resume",
        "--init-from",
        "--seed",
        "--seeds",
        "--updates",
        *HOW_TO_TRAIN,
    ],
    "zoo": ["preset", "--set", "--tasks", "--out", "--runs", "--seeds", "--sequences", *HOW_TO_TRAIN],
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
        "--json",
    ],
    "plot": ["DIR", "--out", "--tasks"],
    "export": ["DIR"],
    "import": ["FILE", "--format", "--out", "--cell", "--task", "--tasks"],
    "card": ["DIR", "--tasks"],
    "models": ["DIR", "--json"],
    "bench": ["NAME"],
    "bench kernels": ["--tables", "--sizes", "--batches", "--rounds", "--seconds", "--peers", "--profile", "--quick"],
    "bench training": ["--batches", "--updates", "--rounds", "--seconds", "--peers", "--quick"],
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
    "bench served-steps": ["--checkpoints", "--model", "--sessions", "--backend", "--rounds", "--seconds"],
    "bench durability": ["--checkpoints", "--data-root", "--model", "--sessions", "--rounds", "--seconds"],
    "bench sessions": ["--checkpoints", "--data-root", "--model", "--sessions", "--max-resident"],
    "bench fairness": ["--checkpoints", "--model", "--neighbour", "--requests", "--rounds", "--data-root"],
    "check": ["--data", "--json"],
    "serve": ["--config", *(f"--{name.replace('_', '-')}" for name in Settings.model_fields)],
}

no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")


def engram(*words):
    """Run `engram` in a process of its own."""
    command = [sys.executable, "-m", "engram", *map(str, words)]
    return subprocess.run(command, cwd=tiny.ROOT, capture_output=True, text=True, timeout=100)


def done(capsys, *words):
    """Run a command in this process, and return what it printed."""
    assert cli.main(list(map(str, words))) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def complaint(capsys, *words):
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


def test_recorded_command_starts_the_run_wherever_the_flag_stood(tmp_path, capsys):
    preset, out = str(tiny.write_toml(tmp_path / "tiny.toml")), str(tmp_path / "out")
    done(capsys, "train", preset, "--out", out)
    done(capsys, "train", "--resume", preset, "--out", out)
    assert read_manifest(tmp_path / "out").training["command"] == f"engram train {preset} --out {out}"
    done(capsys, "evaluate", "--save", out, "--json", "--at", "length=2", "--sequences", 5)
    (row,) = read_manifest(tmp_path / "out").evaluation
    assert row["command"] == f"engram evaluate {out} --at length=2 --sequences 5"


def test_values_set_are_those_of_the_run(tmp_path, capsys):
    preset, out = tiny.write_toml(tmp_path / "tiny.toml"), tmp_path / "out"
    words = ["--set", "task.length=[1,5]", "optimizer.kind=rmsprop", "--set", "training.batch_size=2"]
    done(capsys, "train", preset, "--out", out, *words)
    manifest, trained = read_manifest(out), resume(out).preset
    assert (manifest.task["length"], manifest.training["sequences"]) == ([1, 5], 60)
    assert (trained.optimizer.kind, trained.optimizer.learning_rate) == ("rmsprop", 0.01)


def test_seeds_are_listed_with_their_convergence(tmp_path, capsys):
    preset = tiny.write_toml(tmp_path / "tiny.toml", target_errors=100, patience=0)
    printed = done(capsys, "train", preset, "--out", tmp_path, "--seeds", 7, 2, "--jobs", 2)
    head, *seeds, last = printed.splitlines()[-4:]
    assert head.split() == ["seed", "sequences", "converged", "after"]
    assert [line.split() for line in seeds] == [["7", "120", "40"], ["2", "120", "40"]]
    assert last == "2 of 2 seeds converged: median 40 sequences, from 40 to 40"


def test_seed_that_diverges_does_not_stop_the_zoo(tmp_path, capsys):
    preset, runs, out = tiny.write_toml(tmp_path / "tiny.toml", target_errors=100), tmp_path / "runs", tmp_path / "out"
    spoilt = tiny.checkpoint(runs / "seed-2", updates=4, seed=2, target_errors=100)
    torch.nn.init.constant_(spoilt.model.output.bias, torch.nan)
    save_checkpoint(runs / "seed-2", spoilt, "engram train")
    printed = done(capsys, "zoo", preset, "--seeds", 1, 2, "--runs", runs, "--out", out, "--sequences", 5)
    assert "\n     2 diverged: its numbers are not finite, as printed above\n1 of 2 seeds converged: " in printed
    assert read_manifest(out).training["seed"] == 1
    assert read_manifest(out).training["seeds"]["2"]["converged_after"] is None


def test_zoo_publishes_no_run_of_other_settings(tmp_path, capsys):
    preset, runs, out = tiny.write_toml(tmp_path / "tiny.toml"), tmp_path / "runs", tmp_path / "out"
    tiny.checkpoint(runs / "seed-1", updates=30, learning_rate=0.5)
    assert cli.main(["zoo", str(preset), "--seeds", "1", "--runs", str(runs), "--out", str(out)]) == 1
    printed, complaints = capsys.readouterr()
    assert printed.splitlines()[-1] == "     1 failed, for the reason printed above"
    assert complaints.endswith(f"engram: {runs / 'seed-1'} has not finished: nothing is chosen before every seed has\n")
    assert not out.exists()


def test_zoo_refuses_an_unpublishable_place_before_training(tmp_path, capsys):
    preset, out = tiny.write_toml(tmp_path / "tiny.toml"), tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").touch()
    told = complaint(capsys, "zoo", preset, "--runs", tmp_path / "runs", "--out", out)
    assert told == f"engram: {out} holds notes.txt, which is no part of a published checkpoint: give another --out"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("command", ["train", "zoo"])
def test_seed_given_twice_is_refused_in_one_line(tmp_path, capsys, command):
    preset, out = tiny.write_toml(tmp_path / "tiny.toml"), tmp_path / "out"
    told = complaint(capsys, command, preset, "--out", out, "--seeds", 2, 1, 2)
    assert told == "engram: --seeds: 2 is there twice, and would be one run: give each seed once"
    assert not out.exists()


def test_zoo_makes_a_checkpoint_to_serve_of_a_preset(tmp_path, capsys):
    preset = tiny.write_toml(tmp_path / "tiny.toml", evaluation=[{"length": 2, "target": 0}])
    out, runs = tmp_path / "zoo", tmp_path / "runs"
    words = ["zoo", preset, "--seeds", 1, 2, "--jobs", 2, "--out", out, "--runs", runs, "--sequences", 20]
    printed = done(capsys, *words)
    files = {MANIFEST_FILE, WEIGHTS_FILE, ONNX_FILE, "README.md", "learning.json", "learning.png", "weightings.png"}
    assert files <= {path.name for path in out.iterdir()}
    manifest = read_manifest(out)
    assert manifest.training["command"] == shlex.join(["engram", *map(str, words)])
    assert re.search(r"^length 2 .* 0: missed by [\d.]+$", printed, re.MULTILINE)
    told, following = printed.splitlines()[-2:]
    assert all(f" {name}" in told for name in files)
    assert following == f"Next: engram serve --checkpoints {tmp_path}"


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


# Measuring


def test_evaluation_without_save_changes_nothing(checkpoint, capsys):
    before = (checkpoint / MANIFEST_FILE).read_bytes()
    printed = done(capsys, "evaluate", checkpoint, "--at", "length=1", "--sequences", 5)
    assert (checkpoint / MANIFEST_FILE).read_bytes() == before
    assert re.search(r"^length 1 +- +[\d.]+ +2 +\d/5 +[\d.]+$", printed, re.MULTILINE)


def test_evaluation_with_another_memory_size_is_recorded_beside_the_first(tmp_path, capsys):
    tiny.checkpoint(tmp_path, "ntm")
    words = ["evaluate", tmp_path, "--at", "length=2", "--sequences", 5, "--save"]
    done(capsys, *words)
    done(capsys, *words, "--memory-size", 16)
    assert [row["memory_size"] for row in read_manifest(tmp_path).evaluation] == [8, 16]


def test_memory_size_alone_is_measured_as_in_training(tmp_path, capsys):
    tiny.checkpoint(tmp_path, "ntm")
    printed = done(capsys, "evaluate", tmp_path, "--memory-size", 16, "--sequences", 5)
    assert re.search(r"^as in training +16 ", printed, re.MULTILINE)


def test_seed_of_the_evaluation_draws_other_sequences(checkpoint, capsys):
    words = ["evaluate", checkpoint, "--at", "length=3", "--sequences", 100]
    first, again, other = (done(capsys, *words, *seed) for seed in ([], [], ["--seed", 5]))
    assert first == again != other


def test_options_set_hold_for_all_that_is_measured(checkpoint, capsys):
    printed = done(capsys, "evaluate", checkpoint, "--set", "length=7", "--sequences", 5)
    assert re.search(r"^as in training +- +[\d.]+ +14 ", printed, re.MULTILINE)


def test_test_set_is_printed_with_its_number_of_sequences(tmp_path, capsys):
    stories = write_stories(tmp_path)
    task = {"name": "babi", "directory": stories, "tasks": [1]}
    model = {"kind": "rnn", "controller": tiny.LSTM, "embedding": {"size": 4}}
    trainer = Trainer(preset_from_values(tiny.values() | {"task": task, "model": model}))
    save_checkpoint(tmp_path / "out", trainer, "engram train")
    printed = done(capsys, "evaluate", tmp_path / "out", "--at", "split=test", "--at", "split=train", "--sequences", 7)
    heading, _, *rows = printed.splitlines()
    assert heading == "out: babi, one seed"
    assert [re.search(r"/(\d+)", row)[1] for row in rows] == ["1", "7"]


def test_damaged_checkpoint_is_printed_and_ends_in_an_error(tmp_path, capsys):
    for name in ("one", "two"):
        tiny.checkpoint(tmp_path / name)
    (tmp_path / "one" / MANIFEST_FILE).write_text("{")
    assert cli.main(["evaluate", "--all", str(tmp_path), "--sequences", "5"]) == 1
    first, second, _, row = [line for line in capsys.readouterr().out.splitlines() if line]
    assert first.startswith(f"damaged: {tmp_path / 'one' / MANIFEST_FILE}: not JSON: ")
    assert (second, row.split()[:3]) == ("two: copy, one seed", ["as", "in", "training"])


def test_evaluation_of_all_prints_the_rows_of_each(tmp_path, capsys):
    for name in ("one", "two"):
        tiny.checkpoint(tmp_path / name)
        done(capsys, "evaluate", tmp_path / name, "--at", "length=2", "--sequences", 5, "--save")
    printed = done(capsys, "evaluate", "--all", tmp_path, "--sequences", 7)
    assert re.findall(r"^\w+: .*|^length 2 .* \d/7 .*$", printed, re.MULTILINE)[::2] == [
        "one: copy, one seed",
        "two: copy, one seed",
    ]
    assert printed.count("/7") == 2


def test_evaluation_as_json_has_null_for_nonfinite_values(tmp_path, capsys):
    trainer = tiny.checkpoint(tmp_path / "one")
    torch.nn.init.constant_(trainer.model.output.bias, torch.nan)
    save_checkpoint(tmp_path / "two", trainer, "engram train")
    for words in ([tmp_path / "two", "--at", "length=2"], ["--all", tmp_path]):
        told = json.loads(done(capsys, "evaluate", *words, "--sequences", 5, "--json"), parse_constant=pytest.fail)
        reports = told if isinstance(told, list) else [told]
        assert reports[-1]["checkpoint"] == str(tmp_path / "two")
        assert [(row["sequences"], row["cost"]) for row in reports[-1]["rows"]] == [(5, None)]


def test_evaluation_of_all_as_json_says_which_is_damaged(tmp_path, capsys):
    for name in ("one", "two"):
        tiny.checkpoint(tmp_path / name)
    (tmp_path / "one" / MANIFEST_FILE).write_text("{")
    assert cli.main(["evaluate", "--all", str(tmp_path), "--sequences", "5", "--json"]) == 1
    one, two = json.loads(capsys.readouterr().out)
    assert (one["damaged"], one["rows"], "not JSON" in one["error"]) == (True, [], True)
    assert (two["damaged"], len(two["rows"]), "error" in two) == (False, 1, False)


def test_models_are_listed_for_people_and_for_programs(tmp_path, capsys):
    for name in ("one", "two"):
        tiny.checkpoint(tmp_path / name)
    assert [line.split()[:3] for line in done(capsys, "models", tmp_path).splitlines()[1:]] == [
        ["one", "rnn", "4"],
        ["two", "rnn", "4"],
    ]
    assert [model["name"] for model in json.loads(done(capsys, "models", tmp_path, "--json"))] == ["one", "two"]
    (tmp_path / "one" / MANIFEST_FILE).write_text("{")
    assert cli.main(["models", str(tmp_path)]) == 1
    assert "\none                          damaged: " in capsys.readouterr().out


# Help


def test_version_is_printed(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"engram {metadata.version('engram')}\n"


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
    parsers = {parser.prog.removeprefix("engram "): parser for parser in commands(cli.parser())}
    assert set(parsers) == set(OPTIONS)
    for command, parser in parsers.items():
        names = [action.option_strings or [action.metavar or action.dest] for action in parser._actions]
        assert {strings[0] for strings in names} == {"-h", *OPTIONS[command]}


def test_no_command_is_a_mistake_that_shows_the_usage():
    done = engram()
    assert done.returncode == 2
    assert done.stderr.startswith("usage: engram ")


# Complaints


@pytest.mark.parametrize("command", ["evaluate", "export", "card"])
def test_directory_without_a_checkpoint_is_refused_in_one_line(tmp_path, capsys, command):
    told = complaint(capsys, command, tmp_path)
    assert told.endswith(
        f"{MANIFEST_FILE}: No such file or directory; a checkpoint is a directory with a {MANIFEST_FILE}"
    )


def test_unknown_preset_is_refused_with_the_known_ones(tmp_path, capsys):
    told = complaint(capsys, "train", "dnc-sort", "--out", tmp_path / "out")
    assert "no preset 'dnc-sort'" in told
    assert all(name in told for name in preset_names())
    assert not (tmp_path / "out").exists()


@no_cuda
def test_training_on_a_missing_device_is_refused_in_one_line(tmp_path, capsys):
    told = complaint(capsys, "train", "dnc-copy", "--out", tmp_path / "out", "--device", "cuda")
    assert told == "engram: device cuda was asked for, but torch sees no CUDA device here"
    assert not (tmp_path / "out").exists()


@no_cuda
def test_evaluating_on_a_missing_device_is_refused_in_one_line(checkpoint, capsys):
    assert "no CUDA device" in complaint(capsys, "evaluate", checkpoint, "--device", "cuda")


def test_bad_value_in_a_preset_is_refused_in_one_line(tmp_path, capsys):
    preset = tiny.write_toml(tmp_path / "tiny.toml", updates="many")
    told = complaint(capsys, "train", preset, "--out", tmp_path / "out")
    assert told == "engram: training.updates: expected int, got 'many'"


@pytest.mark.parametrize(
    ("word", "told"),
    [
        (
            "length=3",
            "length: expected TABLE.KEY, with a table of task, model, training, optimizer, "
            "or a whole list, curriculum or evaluation",
        ),
        (
            "curriculum=3",
            "preset: curriculum must be a list of tables, [[curriculum]], got 3",
        ),
        ("task.length", "expected KEY=VALUE, got 'task.length'"),
        ("=3", "expected KEY=VALUE, got '=3'"),
        ("task.width=3", "task: unknown key 'width'; known keys are bits, length, flags"),
        ("task.length=[3,1]", "Copy.length must be [least, greatest] with 1 <= least <= greatest, got [3, 1]"),
        ("optimizer.learning_rate=fast", "optimizer.learning_rate: expected float or NoneType, got 'fast'"),
        ("model.input_size=3", "model.input_size: the task sets it, here to 4; leave it out"),
    ],
)
def test_impossible_set_value_is_refused_in_one_line(tmp_path, capsys, word, told):
    preset = tiny.write_toml(tmp_path / "tiny.toml")
    assert complaint(capsys, "train", preset, "--out", tmp_path / "out", "--set", word) == f"engram: {told}"
    assert complaint(capsys, "zoo", preset, "--out", tmp_path / "out", "--set", word) == f"engram: {told}"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--at", "length"], "expected KEY=VALUE, got 'length'"),
        (["--at", "len=3"], "--at: task: unknown key 'len'; known keys are bits, length, flags"),
        (["--at", "length=0"], "--at: Copy.length must be [least, greatest] with 1 <= least <= greatest, got [0, 0]"),
        (["--at", "bits=3"], "--at: with {'bits': 3} the task copy needs another model"),
        (["--set", "len=3"], "--set: task: unknown key 'len'; known keys are bits, length, flags"),
        (
            ["--set", "length=3", "--save"],
            "--save records what --at says: --set may only give the directory of the data then",
        ),
        (
            ["--all", "--at", "length=3"],
            "--all measures what is recorded: it takes no --at, --memory-size or --save",
        ),
        (["--seed", "99999999999"], "--seed must be from 0 to 4294967295, got 99999999999"),
        (["--memory-size", "16"], "memory_size 16 was asked for, but an RNN has no memory to resize"),
    ],
)
def test_impossible_measurement_is_refused_in_one_line(checkpoint, capsys, words, told):
    assert complaint(capsys, "evaluate", checkpoint, *words) == f"engram: {told}"


def test_evaluation_of_nothing_is_refused_in_one_line(tmp_path, capsys):
    assert complaint(capsys, "evaluate") == "engram: which checkpoint? Give its DIR, or --all"
    assert "there is no checkpoint" in complaint(capsys, "evaluate", "--all", tmp_path)


def test_one_seed_and_several_are_not_both_trained(tmp_path, capsys):
    told = complaint(capsys, "train", "dnc-copy", "--out", tmp_path / "out", "--seed", 1, "--seeds", 1, 2)
    assert told == "engram: --seed trains one seed and --seeds several: give one of them"


@pytest.mark.parametrize("words", [["train"], ["train", "--seeds", "1", "2"], ["zoo"]])
def test_tensorboard_without_its_package_is_refused_before_training(tmp_path, capsys, monkeypatch, words):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    preset = tiny.write_toml(tmp_path / "tiny.toml")
    told = complaint(capsys, words[0], preset, *words[1:], "--out", tmp_path / "out", "--tensorboard")
    assert told.endswith("pip install -c constraints.txt -e '.[tensorboard]', or leave --tensorboard out")
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.toml"}


def test_run_with_nonfinite_numbers_ends_in_one_line(tmp_path, capsys):
    preset, out = tiny.write_toml(tmp_path / "tiny.toml", seed=6), tmp_path / "out"
    spoilt = tiny.checkpoint(out, updates=4, seed=6)
    torch.nn.init.constant_(spoilt.model.output.bias, torch.nan)
    save_checkpoint(out, spoilt, "engram train")
    assert cli.main(["train", str(preset), "--out", str(out), "--resume"]) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(
        r"engram: update 10, seed 6: output\.bias is not finite \(.*\), for 6 updates in a row; .*", told
    )


def test_directory_that_holds_a_run_is_refused_in_one_line(tmp_path, checkpoint, capsys):
    preset = tiny.write_toml(tmp_path / "tiny.toml")
    told = complaint(capsys, "train", preset, "--out", checkpoint)
    assert told == f"engram: {checkpoint} holds a training run: go on with it (--resume) or give another --out"


def test_resuming_nothing_or_another_run_is_refused(tmp_path, checkpoint, capsys):
    preset = tiny.write_toml(tmp_path / "tiny.toml")
    nothing = complaint(capsys, "train", preset, "--out", tmp_path / "nowhere", "--resume")
    assert "there is no training run to resume here" in nothing
    other = complaint(capsys, "train", preset, "--out", checkpoint, "--resume", "--seed", 9)
    assert "training.seed = 1, but 9 was asked for" in other


def test_weights_that_do_not_fit_are_refused_in_one_line(checkpoint, capsys):
    manifest = checkpoint / MANIFEST_FILE
    values = json.loads(manifest.read_text())
    values["config"]["controller"]["hidden_size"] = 9
    manifest.write_text(json.dumps(values))
    assert "size mismatch" in complaint(capsys, "evaluate", checkpoint)


def test_directory_with_nothing_to_draw_is_refused_in_one_line(tmp_path, capsys):
    assert "nothing to draw" in complaint(capsys, "plot", tmp_path)


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("train", "--save-every"),
        ("train", "--threads"),
        ("train", "--jobs"),
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


# Importing


CELLS = tiny.ROOT / "tests" / "reference" / "tf_rnn_cells.npz"


def test_imported_cell_becomes_an_exported_checkpoint(tmp_path, capsys):
    printed = done(capsys, "import", "--format", "tf-rnn-cell", CELLS, "--cell", "gru", "--out", tmp_path / "gru")
    assert "198 parameters imported" in printed
    assert {path.name for path in (tmp_path / "gru").iterdir()} == {"manifest.json", "model.safetensors", "model.onnx"}


def test_import_of_a_broken_cell_leaves_nothing_behind(tmp_path, capsys):
    cells = {"cells": [{"type": "BasicRNNCell", "num_units": 2, "activation": "relu"}]}
    names = {"kernel": "basic_rnn_cell/kernel:0", "bias": "basic_rnn_cell/bias:0"}
    arrays = {names["kernel"]: np.full((3, 2), 2e38), names["bias"]: np.full(2, 2e38)}
    file, out = tmp_path / "relu.npz", tmp_path / "relu"
    np.savez(file, config=json.dumps(cells), **arrays)
    words = ["import", "--format", "tf-rnn-cell", file, "--out", out]
    assert "its first step is not finite, in torch as well" in complaint(capsys, *words)
    assert not out.exists()
    np.savez(file, config=json.dumps(cells), **{name: array / 1e38 for name, array in arrays.items()})
    assert "8 parameters imported" in done(capsys, *words)


def test_import_without_its_cell_is_refused_in_one_line(tmp_path, capsys):
    told = complaint(capsys, "import", "--format", "tf-rnn-cell", CELLS, "--out", tmp_path / "cell")
    assert "--cell takes one of basic_lstm, basic_rnn, gru" in told


NTM = tiny.ROOT / "tests" / "reference" / "pytorch_ntm_2heads_2layers.pt"


def test_imported_model_with_a_task_is_measured_drawn_and_described(tmp_path, capsys):
    tensors, out = torch.load(NTM, weights_only=True), tmp_path / "ntm"
    output = {name: tensors[name][:3] for name in ("ntm.fc.weight", "ntm.fc.bias")}
    torch.save(tensors | output, tmp_path / "ntm.pt")
    task = ["--task", "name=copy", "bits=3", "length=[1,4]"]
    done(capsys, "import", tmp_path / "ntm.pt", "--format", "pytorch-ntm", "--out", out, *task)
    measured = done(capsys, "evaluate", out, "--sequences", 5)
    assert re.search(r"^as in training .*\d/5 ", measured, re.MULTILINE)
    assert str(out / "weightings.png") in done(capsys, "plot", out)
    assert done(capsys, "card", out) == f"{out / 'README.md'}\n"


def test_imported_model_without_a_task_names_the_remedy(tmp_path, capsys):
    out = tmp_path / "gru"
    done(capsys, "import", "--format", "tf-rnn-cell", CELLS, "--cell", "gru", "--out", out)
    told = "engram: task.name: the model was imported without a task; engram import --task name=TASK gives it one"
    assert complaint(capsys, "evaluate", out) == complaint(capsys, "plot", out) == told
    assert done(capsys, "card", out) == f"{out / 'README.md'}\n"


def test_import_over_a_checkpoint_or_without_weights_is_refused(checkpoint, tmp_path, capsys):
    told = complaint(capsys, "import", NTM, "--format", "pytorch-ntm", "--out", checkpoint)
    assert told == f"engram: {checkpoint} holds a checkpoint, training.safetensors: give another --out"
    told = complaint(capsys, "import", tiny.ROOT / "LICENSE", "--format", "pytorch-ntm", "--out", tmp_path / "new")
    assert "LICENSE: neither an npz file of arrays nor a state_dict" in told
