"""Users' own tasks: registered by a file, and then known to every command with that file."""

import re
from dataclasses import dataclass

import pytest
import torch

from engram import main as cli
from models.config import ConfigError
from models.manifest import ONNX_FILE, read_manifest
from tests.training import tiny
from training.checkpoint import resume
from training.own import OwnFiles
from training.tasks import TASKS, AnswerTask, BitTask, Copy, build_task, register

PARITY = """\
from dataclasses import dataclass
import torch
from training.tasks import BitTask, Episode, Range, register

@register
@dataclass(frozen=True)
class Parity(BitTask):
    length: Range = (1, 4)
    name, input_size, output_size = "parity", 1, 1

    def sample(self, generator, batch_size):
        bits = torch.randint(0, 2, (self.length[1], batch_size, 1), generator=generator).float()
        return Episode(bits, bits.cumsum(0) % 2, torch.ones(bits.shape[:2]))
"""

PRESET = """
task = { name = "parity" }
model = { kind = "rnn", controller = { kind = "gru", hidden_size = 8 } }
training = { updates = 20, batch_size = 4, validate_every = 10, validation_sequences = 8 }
"""


def load_tasks(file):
    OwnFiles(tasks=[file]).load()


@pytest.fixture
def own(tmp_path):
    """The words of a command that name a file with a user's task."""
    (tmp_path / "own.py").write_text(PARITY)
    return ["--tasks", tmp_path / "own.py"]


@pytest.fixture
def preset(tmp_path):
    (tmp_path / "own.toml").write_text(PRESET)
    return tmp_path / "own.toml"


def refusal(file, text=None):
    """Return the error of an unusable file of tasks with this text."""
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_tasks(file)
    return str(error.value)


def engram(*words):
    return cli.main(list(map(str, words)))


# Registering


def test_registered_class_is_known_until_it_is_redefined():
    def defined():
        @register
        @dataclass(frozen=True)
        class Echo(Copy):
            name = "echo"

        return Echo

    first = defined()
    assert build_task({"name": "echo", "bits": 2}) == first(bits=2)
    second = defined()
    assert TASKS["echo"] is second is not first


def test_name_of_another_task_is_refused():
    class Mine(Copy):
        pass

    with pytest.raises(ConfigError, match="task 'copy': that is the name of Copy already; give Mine another"):
        register(dataclass(frozen=True)(Mine))
    assert TASKS["copy"] is Copy


def test_class_that_is_no_task_is_refused_with_reason():
    class Answers(AnswerTask):
        name, groups, classes = "answers", 1, 2

    class Nameless(Copy):
        name = None

    class Echo(Copy):
        name = "echo"

    message = {
        Answers: "task 'answers': Answers must define model_values, render, sample",
        Nameless: "Nameless.name: expected the name of a task, such as 'parity', got None",
        Echo: "task 'echo': Echo is no dataclass: put @dataclass(frozen=True) below @register",
        int: "int is no task: derive it from BitTask or AnswerTask",
    }
    for task, complaint in message.items():
        with pytest.raises(ConfigError, match=re.escape(complaint)):
            register(task)


# Files


def test_file_imports_neighbours_and_may_be_run_again(tmp_path):
    (tmp_path / "sizes_of_mine.py").write_text("LENGTH = (3, 7)")
    text = PARITY.replace("(1, 4)", "LENGTH").replace("import torch", "import torch\nfrom sizes_of_mine import LENGTH")
    (tmp_path / "own.py").write_text("from __future__ import annotations\n" + text)
    load_tasks(tmp_path / "own.py")
    first = TASKS["parity"]
    load_tasks(tmp_path / "own.py")
    assert TASKS["parity"] is not first
    assert build_task({"name": "parity"}).sizes == {"length": (3, 7)}


def test_missing_file_is_refused_by_name(tmp_path):
    assert refusal(tmp_path / "own.py").startswith(f"--tasks {tmp_path / 'own.py'}: there is no such file")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n1 +", "own.py, line 2: SyntaxError: invalid syntax"),
        ("x = 1\n\nprint(y)", "own.py, line 3: NameError: name 'y' is not defined"),
        ("import json\njson.loads('{')", "own.py, line 2: JSONDecodeError: Expecting property name"),
        ("import sys\nsys.exit('no')", "own.py, line 2: SystemExit: no"),
        ("x = '\0'", "own.py: SyntaxError: source code string cannot contain null bytes"),
        ("\nx = 3", "own.py: it registers no task: put @register, of training.tasks, above its class"),
    ],
)
def test_failing_file_is_reported_with_line_and_reason(tmp_path, text, message):
    assert message in refusal(tmp_path / "own.py", text)


def test_second_task_of_a_name_is_refused_with_its_line(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "own.py").write_text(PARITY)
    load_tasks(tmp_path / "one" / "own.py")
    message = refusal(tmp_path / "own.py", PARITY)
    assert "own.py, line 5: task 'parity': that is the name of Parity already; give Parity another" in message
    message = refusal(tmp_path / "own.py", PARITY.replace('"parity"', '"copy"'))
    assert "own.py, line 5: task 'copy': that is the name of Copy already; give Parity another" in message


# Commands


def test_task_of_ones_own_goes_the_whole_way(tmp_path, capsys, own, preset):
    out = tmp_path / "out"
    assert engram("train", preset, *own, "--out", out) == 0
    printed = capsys.readouterr().out
    assert f"Next: engram evaluate {out} --tasks {own[1]}    engram plot {out} --tasks {own[1]}    engram" in printed
    assert read_manifest(out).training["command"] == f"engram train {preset} --tasks {own[1]} --out {out}"
    assert engram("train", preset, *own, "--out", out, "--resume") == 0
    assert engram("evaluate", out, *own, "--at", "length=3", "--sequences", 5) == 0
    assert re.search(r"^length 3 .*\d/5 ", capsys.readouterr().out, re.MULTILINE)
    assert engram("plot", out, *own) == engram("card", out, *own) == 0
    assert (out / "weightings.png").exists()


@pytest.mark.slow
def test_zoo_trains_a_users_task_in_processes(tmp_path, own, preset):
    runs, out = tmp_path / "runs", tmp_path / "zoo"
    assert engram("zoo", preset, *own, "--runs", runs, "--out", out, "--seeds", 2, "--sequences", 5) == 0
    assert resume(runs / "seed-2").progress.update == 20
    assert (out / ONNX_FILE).exists()
    card = (out / "README.md").read_text()
    assert "the task `parity` (length 1 to 4)" in card
    assert f"\n    engram evaluate {out} --tasks {own[1]} --sequences 5\n" in card


def test_command_without_the_file_says_how_to_name_it(tmp_path, capsys, own, preset):
    assert engram("train", preset, *own, "--out", tmp_path / "out") == 0
    del TASKS["parity"]
    for words in (
        ["train", preset, "--out", tmp_path / "new"],
        ["evaluate", tmp_path / "out"],
        ["plot", tmp_path / "out"],
    ):
        assert engram(*words) == 1
        message = capsys.readouterr().err.splitlines()[-1]
        assert message.endswith("babi, got 'parity'; --tasks FILE names the Python file of others")


def test_failing_file_is_reported_in_one_line(tmp_path, capsys, own, preset):
    own[1].write_text("import nothing_like_that")
    assert engram("train", preset, *own, "--out", tmp_path / "out") == 1
    message = f"engram: --tasks {own[1]}, line 1: ModuleNotFoundError: No module named 'nothing_like_that'\n"
    assert capsys.readouterr().err == message


# Documentation


@pytest.mark.slow
def test_task_of_the_page_on_training_learns(tmp_path):
    page = (tiny.ROOT / "docs" / "training.md").read_text()
    (tmp_path / "clock.py").write_text(page.split("```python\n")[1].split("```")[0])
    toml = PRESET.replace("parity", "clock").replace("updates = 20", "updates = 300")
    (tmp_path / "clock.toml").write_text(toml)
    words = ["--tasks", tmp_path / "clock.py", "--out", tmp_path / "out", "--set", "task.length=2", "task.classes=3"]
    assert engram("train", tmp_path / "clock.toml", *words, "optimizer.learning_rate=3e-2") == 0
    assert read_manifest(tmp_path / "out").training["reached_target"]
    clock = build_task({"name": "clock"})
    assert clock.render(clock.sample(torch.Generator().manual_seed(1), 2)).count("=") == 1


def test_page_on_training_names_the_methods_of_a_task():
    page = (tiny.ROOT / "docs" / "training.md").read_text()
    for kind, attributes in ((BitTask, {"input_size", "output_size"}), (AnswerTask, {"groups", "classes"})):
        (row,) = re.findall(rf"^\| `{kind.__name__}` \|.*\| (.*) \|$", page, re.MULTILINE)
        assert set(re.findall(r"`(\w+)`", row)) == {"name"} | attributes | set(kind.__abstractmethods__)
