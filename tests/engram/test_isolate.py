"""`engram isolate`: its report, and the models and numbers that it refuses."""

import json

import numpy as np
import pytest

from benchmarks.isolation import SITUATIONS, Options, Report, Verdict
from benchmarks.isolation.course import Moment, Plan
from benchmarks.isolation.host import Card
from benchmarks.isolation.judge import Finding, difference
from benchmarks.isolation.report import as_json, lines, markdown
from engram import main as cli
from tests.app.checkpoints import make_token_checkpoint
from tests.engram.running import complaint, done
from tests.training import tiny

CARD = Card("rnn", "onnx", 2, None, None, None)
EQUAL, ROUNDED = Finding(compared=9, held=8), Finding(compared=9, largest=2.5e-7, allowed=1e-6)
LEAK = Finding(compared=9, leak="session 1, step 3: outputs differs by 0.5")


def report(**findings):
    """Return a report with the findings of some situations: against alone, or a pair with those against others."""
    pairs = {name: found if isinstance(found, tuple) else (found, None) for name, found in findings.items()}
    known = {situation.name: situation for situation in SITUATIONS}
    return Report("tiny", CARD, [Verdict(known[name], *pair) for name, pair in pairs.items()])


def test_report_says_how_equal_each_situation_is(tmp_path):
    printed = list(lines(report(again=EQUAL, batched=(ROUNDED, EQUAL)), Options(tmp_path)))
    assert printed[0] == "tiny: rnn by onnx, 4 sessions beside 4 strangers, 12 steps, seed 0"
    assert printed[2].split() == ["again", "equal", "to", "the", "bit"]
    assert printed[3] == "  batched     within 2.5e-07 (rounding 1.0e-06)         equal to the bit"
    assert printed[4] == "  no session is seen in another: 2 situations"


def test_report_names_the_leak(tmp_path):
    printed = list(lines(report(again=EQUAL, batched=(EQUAL, LEAK)), Options(tmp_path)))
    assert printed[3].split()[-1] == "LEAK"
    assert printed[4:] == ["  LEAK  batched: session 1, step 3: outputs differs by 0.5"]


def test_report_distinguishes_a_server_that_failed_from_a_leak(tmp_path):
    failed = Report("tiny", CARD, [Verdict(SITUATIONS[0], None, note="500 Internal Server Error", failed=True)])
    assert list(lines(failed, Options(tmp_path)))[-1] == "  FAULT again: 500 Internal Server Error"
    assert list(markdown([failed]))[-1] == "| `tiny` | onnx | **failed** |"
    assert list(lines(Report("x", error="no"), Options(tmp_path)))[-1] == "  FAULT no"


def test_nan_in_any_tensor_is_the_largest_difference():
    tensors = {"outputs": np.ones(2), "h": np.array([0.0, np.nan])}
    one, other = Moment(1, None, None), Moment(1, None, None)
    one.__dict__["tensors"], other.__dict__["tensors"] = tensors, tensors | {"h": np.zeros(2)}
    assert difference(one, other) == ("h", np.inf)


def test_inputs_of_a_graph_of_tokens_are_tokens():
    plan = Plan(2, 5, 0, Card("onnx", "onnx", 1, None, 7, np.array([[0, 6]])))
    assert set(plan.random_inputs(0).ravel()) <= set(range(7))


def test_report_says_where_no_batches_were_the_same(tmp_path):
    printed = list(lines(report(extremes=(EQUAL, Finding(compared=4))), Options(tmp_path)))
    assert printed[2].endswith("  not compared: batches of other sizes")
    assert list(markdown([report(extremes=(EQUAL, Finding(compared=4)))]))[-1] == "| `tiny` | onnx | not compared |"


def test_table_has_models_as_rows_and_situations_as_columns():
    rows = list(markdown([report(again=EQUAL, batched=(ROUNDED, EQUAL)), report(again=LEAK), Report("x", error="no")]))
    assert rows == [
        "| model | back end | again | batched |",
        "|---|---|---|---|",
        "| `tiny` | onnx | = | 2e-07 |",
        "| `tiny` | onnx | **leak** |  |",
        "| `x` | **not served** |  |  |",
    ]


def test_json_has_what_programs_need():
    document = as_json(report(batched=(ROUNDED, LEAK)))
    assert (document["model"], document["backend"], document["error"]) == ("tiny", "onnx", None)
    [batched] = document["situations"]
    assert batched["alone"] == {
        "compared": 9,
        "held": 0,
        "equal": False,
        "difference": 2.5e-7,
        "allowed": 1e-6,
        "leak": None,
    }
    assert batched["fault"] == LEAK.leak


@pytest.mark.slow
def test_model_is_played_through_and_passes(tmp_path, capsys):
    make_token_checkpoint(tmp_path / "words")
    words = ("--checkpoints", tmp_path, "--sessions", 2, "--steps", 4, "--seed", 3)
    [document] = json.loads(done(capsys, "isolate", "--all", *words, "--json"))
    assert document["model"] == "words"
    assert {situation["fault"] for situation in document["situations"]} == {None}


@pytest.mark.slow
def test_model_that_is_not_served_is_a_failure(tmp_path, capsys):
    make_token_checkpoint(tmp_path / "words", exported=False)
    assert cli.main(["isolate", "words", "--checkpoints", str(tmp_path), "--backend", "onnx"]) == 1
    assert "engram export" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "which models? Give their names, or --all"),
        (["dnc-copy", "--all"], "which models? Give their names, or --all"),
        (["nowhere"], "no checkpoint 'nowhere' in "),
        (["dnc-copy", "--sessions", "1"], "--sessions must be from 2 to 100, got 1"),
        (["dnc-copy", "--steps", "3"], "--steps must be at least 4, got 3"),
        (["dnc-copy", "--json", "--markdown"], "--json or --markdown, not both"),
    ],
)
def test_words_that_do_not_fit_are_refused(capsys, words, message):
    assert message in complaint(capsys, "isolate", *words, "--checkpoints", tiny.ROOT / "checkpoints")


def test_directory_without_checkpoints_is_refused(tmp_path, capsys):
    assert "no checkpoints in" in complaint(capsys, "isolate", "--all", "--checkpoints", tmp_path)
