"""Tables of errors: of a checkpoint whose errors are known, and of all in a directory."""

import dataclasses
import re

import pytest

from models.config import ConfigError
from models.manifest import MANIFEST_FILE, WEIGHTS_FILE, read_manifest
from tests.training import tiny
from training.checkpoint import save_evaluation, write_manifest
from training.preset import Point
from training.table import (
    HEAD,
    Measurement,
    all_checkpoints,
    checkpoint_rows,
    convergence,
    errors_text,
    goal_text,
    line,
    of_text,
    options_text,
    seeds_text,
)

HOW = Measurement(sequences=20, seed=1, device="cpu", options={})

ROW = {
    "options": {"length": 10},
    "memory_size": 8,
    "sequences": 200,
    "errors": 1.25,
    "cost": 2.34567,
    "asked": 20.0,
    "wrong_sequences": 31,
    "optimum": None,
    "target": None,
    "unit": "wrong bits",
}


# The words of a row


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "as in training"),
        ({"length": 10}, "length 10"),
        ({"length": [1, 20], "repeats": 3}, "length 1 to 20, repeats 3"),
        ({"tasks": [1, 2, 3]}, "tasks [1, 2, 3]"),
    ],
)
def test_options_are_printed_in_words(options, text):
    assert options_text(options) == text


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"errors": 0.5, "target": None, "optimum": None}, ""),
        ({"errors": 0.5, "optimum": None}, ""),
        ({"errors": 0.5, "target": 0.5, "optimum": None}, "0.5: reached"),
        ({"errors": 0.0, "target": 0, "optimum": None}, "0: reached"),
        ({"errors": 0.75, "target": 0.5, "optimum": None}, "0.5: missed by 0.25"),
        ({"errors": 131.5, "target": 1.0, "optimum": 130.0}, "1: missed by 0.5"),
        ({"errors": 130.75, "target": 1.0, "optimum": 130.0}, "1: reached"),
        ({"errors": 0.25, "cost": 0.5, "target": 0.5, "optimum": None}, "0.5: reached"),
        ({"errors": 0.25, "cost": 0.75, "target": 0.5, "optimum": None}, "0.5: reached (cost: missed by 0.25)"),
        ({"errors": 0.75, "cost": 2.0, "target": 0.5, "optimum": None}, "0.5: missed by 0.25"),
        ({"errors": 130.75, "cost": 130.75, "target": 1.0, "optimum": 130.0}, "1: reached"),
    ],
)
def test_goal_is_printed_with_the_missing_amount(row, text):
    assert goal_text(row) == text


def test_errors_are_printed_beside_their_maximum_or_optimum():
    assert of_text(ROW) == "20"
    assert of_text(ROW | {"optimum": 130.04}) == "optimum 130.0"


def test_wrong_answers_are_printed_with_their_share():
    assert errors_text(ROW) == "1.25"
    assert errors_text(ROW | {"unit": "wrong answers"}) == "1.25 (6.25%)"


def test_line_stands_under_its_head():
    text = line(ROW | {"target": 1.0})
    assert text.split() == ["length", "10", "8", "1.25", "20", "31/200", "2.346", "1:", "missed", "by", "0.25"]
    assert line(ROW | {"target": 1.0, "published": "0.1 (NTM)"}) == f"{text:<{HEAD.index('published')}}0.1 (NTM)"
    for title, cell in (
        ("slots", " 8"),
        ("errors/sequence", "1.25"),
        ("of", " 20"),
        ("error", "31/200"),
        ("bits", "2.346"),
    ):
        assert HEAD.rindex(title) + len(title) == text.index(cell) + len(cell)


def test_line_without_memory_or_goal_has_a_dash():
    text = line(ROW | {"memory_size": None})
    assert text.split() == ["length", "10", "-", "1.25", "20", "31/200", "2.346"]
    assert text == text.rstrip()


@pytest.mark.parametrize("row", [ROW | {"cost": None}, {name: ROW[name] for name in ROW if name != "cost"}])
def test_cost_that_there_is_none_of_is_a_dash(row):
    assert line(row).split()[-2:] == ["31/200", "-"]


@pytest.mark.parametrize(
    ("after", "text"),
    [
        ([None, None], "0 of 2 seeds converged"),
        ([4000], "1 of 1 seeds converged: median 4,000 sequences, from 4,000 to 4,000"),
        ([9000, 1000, 2000], "3 of 3 seeds converged: median 2,000 sequences, from 1,000 to 9,000"),
        ([3000, None, 1000], "2 of 3 seeds converged: median 3,000 sequences, from 1,000 to never"),
        ([None, 1000, None], "1 of 3 seeds converged: median never, from 1,000 to never"),
    ],
)
def test_convergence_counts_a_seed_that_did_not_as_the_last(after, text):
    assert convergence(after) == text


def test_seeds_of_a_checkpoint_are_those_of_its_record(tmp_path):
    tiny.checkpoint(tmp_path)
    manifest = read_manifest(tmp_path)
    assert seeds_text(manifest) == "one seed"
    seeds = {str(seed): {"converged_after": 100 * seed} for seed in (1, 2, 3)}
    recorded = dataclasses.replace(manifest, training=manifest.training | {"seeds": seeds})
    assert seeds_text(recorded) == "3 of 3 seeds converged: median 200 sequences, from 100 to 300"


# One checkpoint


def test_checkpoint_is_measured_at_the_points_that_are_given(tmp_path):
    tiny.checkpoint(tmp_path, "dnc")
    text = []
    points = [Point({"length": 2}, 16, target=0.0), Point({})]
    rows = checkpoint_rows(tmp_path, points, HOW, text.append)
    assert [(row["options"], row["memory_size"], row["sequences"]) for row in rows] == [
        ({"length": 2}, 16, 20),
        ({}, 8, 20),
    ]
    assert text == [HEAD, *map(line, rows)]


def test_checkpoint_is_measured_where_its_manifest_records_errors(tmp_path):
    tiny.checkpoint(tmp_path, "dnc")
    first = checkpoint_rows(tmp_path, [Point({"length": 2}, 16, 1.0, "few"), Point({})], HOW, str)
    save_evaluation(tmp_path, read_manifest(tmp_path), first)
    assert checkpoint_rows(tmp_path, [], HOW, str) == first


def test_checkpoint_without_a_record_is_measured_as_it_was_trained(tmp_path):
    tiny.checkpoint(tmp_path)
    (row,) = checkpoint_rows(tmp_path, [], HOW, str)
    assert row["options"] == {}


def test_options_for_all_are_under_those_of_each_point(tmp_path):
    tiny.checkpoint(tmp_path)
    how = dataclasses.replace(HOW, options={"length": 2})
    rows = checkpoint_rows(tmp_path, [Point({}), Point({"length": 5})], how, str)
    assert [row["asked"] for row in rows] == [4.0, 10.0]


@pytest.mark.parametrize(
    ("point", "options", "complaint"),
    [
        (Point({"width": 3}), {}, "--at: task: unknown key 'width'; known keys are bits, length"),
        (Point({"bits": 3}), {}, "--at: with {'bits': 3} the task copy needs another model"),
        (Point({}), {"lenght": 3}, "--set: task: unknown key 'lenght'; known keys are bits, length"),
        (Point({}), {"bits": 3}, "--set: with {'bits': 3} the task copy needs another model"),
        (Point({}, memory_size=16), {}, "memory_size 16 was asked for, but an RNN has no memory to resize"),
    ],
)
def test_impossible_point_is_refused_before_anything_is_printed(tmp_path, point, options, complaint):
    tiny.checkpoint(tmp_path)
    text = []
    with pytest.raises(ConfigError, match=complaint):
        checkpoint_rows(tmp_path, [Point({}), point], dataclasses.replace(HOW, options=options), text.append)
    assert text == []


# All checkpoints


@pytest.fixture
def checkpoints(tmp_path):
    """A directory of two checkpoints, one of them with a record, and of another file."""
    for name, model in (("second", "rnn"), ("first", "ntm")):
        tiny.checkpoint(tmp_path / name, model)
    rows = checkpoint_rows(tmp_path / "first", [Point({"length": 2}, 16), Point({"length": 4})], HOW, str)
    save_evaluation(tmp_path / "first", read_manifest(tmp_path / "first"), rows)
    (tmp_path / "notes").mkdir()
    return tmp_path


def table(directory, **changes):
    text = []
    list(all_checkpoints(directory, dataclasses.replace(HOW, **changes), text.append))
    return text


def test_all_checkpoints_are_measured_where_they_have_a_record(checkpoints):
    text = table(checkpoints)
    recorded = [line(row) for row in read_manifest(checkpoints / "first").evaluation]
    (row,) = checkpoint_rows(checkpoints / "second", [], HOW, str)
    assert text == ["\nfirst: copy, one seed", HEAD, *recorded, "\nsecond: copy, one seed", HEAD, line(row)]


def test_checkpoint_with_missing_data_is_named_and_left_out(checkpoints):
    manifest = read_manifest(checkpoints / "first")
    task = {"name": "babi", "directory": "nowhere", "vocabulary": ["-", "a"]}
    write_manifest(checkpoints / "first", dataclasses.replace(manifest, task=task, evaluation=[]))
    text = table(checkpoints)
    assert text[0] == "\nfirst: babi, one seed"
    assert re.match("not measured: .*nowhere", text[-4])
    assert text[-3:-1] == ["\nsecond: copy, one seed", HEAD]


def test_options_apply_to_tasks_that_have_them(checkpoints):
    tiny.checkpoint(checkpoints / "third", task={"name": "repeat-copy", "length": 2, "repeats": [1, 2]})
    text, before = table(checkpoints, options={"repeats": 3}), table(checkpoints)
    assert text[:-1] == before[:-1]
    assert text[-1].split()[5] == "21"


def test_option_that_no_checkpoint_has_is_refused(checkpoints):
    with pytest.raises(ConfigError, match=r"--set: no task of a checkpoint in .* has an option 'directory'"):
        table(checkpoints, options={"directory": "data"})


@pytest.mark.parametrize("name", [MANIFEST_FILE, WEIGHTS_FILE])
def test_damaged_checkpoint_is_counted_and_others_are_measured(checkpoints, name):
    whole, text = table(checkpoints), []
    (checkpoints / "first" / name).write_bytes(b"")
    assert [report["damaged"] for report in all_checkpoints(checkpoints, HOW, text.append)] == [True, False]
    assert re.match(f"damaged: .*first/{name}: ", text[-4])
    assert text[-3:] == whole[-3:]


def test_directory_without_a_checkpoint_is_named(tmp_path):
    with pytest.raises(ConfigError, match=f"there is no checkpoint, a directory with a {MANIFEST_FILE}, in it"):
        table(tmp_path)
