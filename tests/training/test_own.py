"""Users' own models: registered by a file, then trained, exported and served as those that come with Engram."""

import re

import pytest
import torch

from engram import main as cli
from models.artefact import load
from models.config import ConfigError
from models.contract import schemas
from models.laws import LAWS
from models.manifest import ONNX_FILE, read_manifest
from models.registry import MODELS, build, register_model
from tests.models.broken import Leaky, LeakyConfig
from tests.training import tiny
from tests.training.test_distributed import PATIENCE_SECONDS, started
from training.checkpoint import resume, save_model
from training.export import ExportError, export
from training.own import OwnFiles
from training.tasks import TASKS

FILE = """\
from dataclasses import dataclass
from models.registry import register_model
from tests.models.broken import Leaky, LeakyConfig, Slots

@register_model("leaky", LeakyConfig)
class Mine(Leaky):
    pass
"""

TASK = """
from training.tasks import Copy, register

@register
@dataclass(frozen=True)
class Echo(Copy):
    name = "echo"
"""

PRESET = """
task = { name = "copy", bits = 2, length = [1, 3] }
model = { kind = "leaky", size = 8 }
training = { updates = 20, batch_size = 4, validate_every = 10, validation_sequences = 8 }
"""


@pytest.fixture
def own(tmp_path):
    """The words of a command that name a file with a user's model."""
    (tmp_path / "own.py").write_text(FILE)
    return ["--models", tmp_path / "own.py"]


@pytest.fixture
def preset(tmp_path):
    (tmp_path / "own.toml").write_text(PRESET)
    return tmp_path / "own.toml"


def engram(*words):
    return cli.main(list(map(str, words)))


def refusal(**files):
    with pytest.raises(ConfigError) as error:
        OwnFiles(**files).load()
    return str(error.value)


# Files


def test_file_of_tasks_and_models_runs_once_for_both(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(FILE + TASK + "\nwith open(__file__ + '.runs', 'a') as runs:\n    runs.write('.')\n")
    OwnFiles([file], [tmp_path / ".." / tmp_path.name / "own.py"]).load()
    assert (tmp_path / "own.py.runs").read_text() == "."
    assert {"echo"} <= set(TASKS)
    assert MODELS["leaky"][1].__name__ == "Mine"
    first = MODELS["leaky"][1]
    OwnFiles(models=[file]).load()
    assert MODELS["leaky"][1] is not first


def test_file_that_registers_none_of_its_option_is_refused(tmp_path):
    (tmp_path / "model.py").write_text(FILE)
    (tmp_path / "task.py").write_text("from dataclasses import dataclass\n" + TASK)
    assert refusal(tasks=[tmp_path / "model.py"]).endswith(
        "model.py: it registers no task: put @register, of training.tasks, above its class"
    )
    assert refusal(models=[tmp_path / "task.py"]) == (
        f"--models {tmp_path / 'task.py'}: it registers no model: put @register_model(KIND, CONFIG), of "
        "models.registry, above its class"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, ": there is no such file; it is a Python file that registers models"),
        ("\n1 +", ", line 2: SyntaxError: invalid syntax"),
        (FILE.replace('"leaky"', '"onnx"'), ", line 5: model 'onnx': it is the kind of imported graphs; give Mine "),
        (FILE.replace('"leaky"', '"dnc"'), ", line 5: model 'dnc': that is the kind of DNC already; give Mine another"),
        (FILE + "\n@dataclass\nclass C(LeakyConfig): pass", ", line 9: TypeError: cannot inherit non-frozen dataclass"),
    ],
)
def test_file_with_a_fault_is_reported_with_line_and_reason(tmp_path, text, message):
    file = tmp_path / "own.py"
    if text is not None:
        file.write_text(text)
    assert refusal(models=[file]).startswith(f"--models {file}{message}")


def test_words_name_every_file_by_its_option(tmp_path):
    a, b, c = (tmp_path / name for name in "abc")
    files = OwnFiles([a], [b, c])
    assert files.words == [
        "--tasks",
        f"{tmp_path / 'a'}",
        "--models",
        f"{tmp_path / 'b'}",
        "--models",
        f"{tmp_path / 'c'}",
    ]


# Commands


@pytest.mark.slow
def test_model_of_ones_own_is_trained_resumed_measured_and_drawn(tmp_path, capsys, own, preset):
    out = tmp_path / "out"
    assert engram("train", preset, *own, "--out", out, "--updates", 10) == 0
    printed = capsys.readouterr()
    assert "Training by torch: there is no fused kernel for this model: it is a Mine; torch trains it" in printed.err
    words = f"{out} --models {own[1]}"
    assert f"Next: engram evaluate {words}    engram plot {words}    engram export {words}" in printed.out
    assert read_manifest(out).training["command"] == f"engram train {preset} --models {own[1]} --out {out} --updates 10"
    assert engram("train", preset, *own, "--out", out, "--resume") == 0
    assert resume(out).progress.update == 20
    assert engram("evaluate", out, *own, "--at", "length=3", "--sequences", 5) == 0
    assert re.search(r"^length 3 .*\d/5 ", capsys.readouterr().out, re.MULTILINE)
    assert engram("plot", out, *own) == engram("card", out) == 0
    assert "\n# out\n\nA model of kind `leaky`, trained on the task `copy`" in (out / "README.md").read_text()


def test_interrupted_run_of_an_own_model_resumes_to_same_bits(tmp_path, own, preset):
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    words = ["train", preset, *own, "--set", "optimizer.schedule=constant"]
    assert engram(*words, "--out", straight) == 0
    assert engram(*words, "--out", resumed, "--updates", 7) == 0
    assert engram(*words, "--out", resumed, "--resume") == 0
    models = [load(out)[0].state_dict() for out in (straight, resumed)]
    assert all(torch.equal(tensor, models[1][name]) for name, tensor in models[0].items())


def test_checking_laws_changes_no_weight_of_a_run(tmp_path, own, preset, monkeypatch):
    checked, unchecked = tmp_path / "checked", tmp_path / "unchecked"
    assert engram("train", preset, *own, "--out", checked) == 0
    monkeypatch.setattr("models.registry.check_laws", lambda _: None)
    assert engram("train", preset, *own, "--out", unchecked) == 0
    assert read_manifest(checked).weights_sha256 == read_manifest(unchecked).weights_sha256


@pytest.mark.slow
def test_processes_of_torchrun_train_a_users_model_together(tmp_path, own, preset):
    out = tmp_path / "together"
    with started(2, "engram", "train", preset, *own, "--out", out) as process:
        _, complaints = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, complaints
    OwnFiles(models=[own[1]]).load()
    assert resume(out).progress.update == 20


@pytest.mark.slow
def test_zoo_trains_a_users_model_in_processes(tmp_path, own, preset):
    runs, out = tmp_path / "runs", tmp_path / "zoo"
    assert engram("zoo", preset, *own, "--runs", runs, "--out", out, "--seeds", 2, "--sequences", 5) == 0
    assert resume(runs / "seed-2").progress.update == 20
    assert (out / ONNX_FILE).exists()
    assert f"\n    engram evaluate {out} --models {own[1]} --sequences 5\n" in (out / "README.md").read_text()


def test_command_without_the_file_says_how_to_name_it(tmp_path, capsys, own, preset):
    out = tmp_path / "out"
    assert engram("train", preset, *own, "--out", out) == 0
    del MODELS["leaky"]
    capsys.readouterr()
    for words in (
        ["train", preset, "--out", tmp_path / "new"],
        ["train", preset, "--out", out, "--resume"],
        ["evaluate", out],
        ["plot", out],
        ["export", out],
    ):
        assert engram(*words) == 1
        message = (
            "model.kind: expected one of dnc, ntm, rnn, got 'leaky'; --models FILE names the Python file of others"
        )
        assert capsys.readouterr().err.endswith(f"{message}\n")


def test_model_that_breaks_a_law_is_not_trained(tmp_path, capsys, own, preset):
    mixing = "    def mixed(self, inputs, h):\n        return super().mixed(inputs - inputs.mean(0), h)"
    own[1].write_text(FILE.replace("    pass", mixing))
    assert engram("train", preset, *own, "--out", tmp_path / "out") == 1
    message = "engram: Mine breaks the law that a model keeps rows apart: the output of a row depends on the rows"
    assert capsys.readouterr().err.startswith(message)
    assert not (tmp_path / "out").exists()


def test_fused_unroll_of_an_own_model_is_refused(tmp_path, capsys, own, preset):
    assert engram("train", preset, *own, "--out", tmp_path / "out", "--unroll", "fused") == 1
    message = "engram: there is no fused kernel for this model: it is a Mine; torch trains it\n"
    assert capsys.readouterr().err == message


class RowByRow(Leaky):
    def mixed(self, inputs, h):
        return torch.cat([super(RowByRow, self).mixed(inputs[[row]], h[[row]]) for row in range(len(inputs))])


class Eigenvalues(Leaky):
    def mixed(self, inputs, h):
        h = super().mixed(inputs, h)
        return h + torch.linalg.eigvalsh(h[:, :, None] * h[:, None])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            RowByRow,
            r"inputs of the ONNX graph has shape \[2, 4\], expected \['batch', ...\]: a step must compute all rows",
        ),
        (Eigenvalues, r"torch cannot export a step of this model: Error when translating node %_linalg_eigh .*"),
    ],
)
def test_step_that_no_graph_can_hold_is_not_exported(tmp_path, made, message):
    config = LeakyConfig(4, 2)
    register_model("leaky", LeakyConfig)(made)
    save_model(tmp_path, made(config), "leaky", config, {"name": "none"}, {})
    with pytest.raises(ExportError, match=message) as error:
        export(tmp_path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / ONNX_FILE).exists()


# Documentation


def test_model_of_the_page_on_models_keeps_the_laws(tmp_path):
    page = (tiny.ROOT / "docs" / "models.md").read_text().split("## A model of your own")[1]
    (tmp_path / "leaky.py").write_text(page.split("```python\n")[1].split("```")[0])
    OwnFiles(models=[tmp_path / "leaky.py"]).load()
    model = build("leaky", {"input_size": 3, "output_size": 2, "size": 5})
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == {law.__name__ for law in LAWS}
    assert schemas(model) == ({"h": [5]}, {"h": [5]})
