"""Counting the errors of models made by hand whose errors are known."""

import dataclasses
import math

import pytest
import torch

from kernels.torch_unroll import TorchUnroll
from models.config import ConfigError
from models.registry import build
from tests.training import tiny
from tests.training.delay_line import DelayLine
from training.evaluation import CHOICE_SEED, EVALUATION_SEED, _sample, evaluate, measure, points_of
from training.preset import Point
from training.tasks import Copy, DyckWords, GraphTraversal, NGrams
from training.trainer import VALIDATION_SEED, Trainer

TASK = Copy(bits=3, length=(1, 5))
FOUR = Copy(bits=3, length=(4, 4))
RIGHT = DelayLine(TASK, 4)
WRONG = DelayLine(TASK, 4, certainty=-10.0)
SILENT = DelayLine(TASK, 4, certainty=0.0)
"""A model that returns 0 everywhere: its errors are the ones asked for."""


def ones_drawn(task, batches, seed):
    generator = torch.Generator().manual_seed(seed)
    episodes = [task.sample(generator, rows) for rows in batches]
    return torch.cat([episode.targets.sum((0, 2)) for episode in episodes]).tolist()


# One measurement


@pytest.mark.parametrize("sequences", [1, 50, 120])
def test_errors_of_a_model_that_is_always_right_are_none(sequences):
    measured = measure(RIGHT, FOUR, sequences)
    assert (measured.sequences, measured.errors, measured.asked, measured.wrong_sequences) == (sequences, 0.0, 12.0, 0)


@pytest.mark.parametrize("sequences", [1, 50, 120])
def test_errors_of_an_always_wrong_model_are_all_possible(sequences):
    measured = measure(WRONG, FOUR, sequences)
    assert (measured.errors, measured.asked, measured.wrong_sequences) == (12.0, 12.0, sequences)


def test_errors_are_means_over_the_sequences_of_all_batches():
    ones = ones_drawn(FOUR, [50, 50, 20], seed=1)
    assert measure(SILENT, FOUR, 120, seed=1).errors == pytest.approx(sum(ones) / 120)


def test_sequences_with_an_error_are_counted():
    one = Copy(bits=3, length=(1, 1))
    ones = ones_drawn(one, [40], seed=1)
    wrong = sum(errors > 0 for errors in ones)
    assert measure(SILENT, one, 40, seed=1).wrong_sequences == wrong
    assert 20 < wrong < 40


def test_sequences_without_answers_are_refused(monkeypatch):
    sample = Copy.sample
    monkeypatch.setattr(Copy, "sample", lambda *how: sample(*how)._replace(mask=torch.zeros(10, how[2])))
    with pytest.raises(ConfigError, match="the task copy asks for nothing in 60 sequences"):
        measure(RIGHT, FOUR, 60)


def test_every_sequence_draws_its_own_size():
    generator = torch.Generator().manual_seed(1)
    asked = [TASK.asked(TASK.sample(generator, 1)).item() for _ in range(120)]
    assert len(set(asked)) == 5
    assert measure(SILENT, TASK, 120, seed=1).asked == pytest.approx(sum(asked) / 120)


def test_sequences_of_one_size_are_drawn_as_a_batch():
    """Published figures depend on how the sequences are drawn."""
    graphs = GraphTraversal(label_digits=1, nodes=(3, 6), neighbours=(2, 2))
    for task in (FOUR, graphs):
        drawn, due = (torch.Generator().manual_seed(1) for _ in range(2))
        episode, expected = _sample(task, drawn, 7), task.sample(due, 7)
        assert torch.equal(episode.inputs, expected.inputs)
        assert torch.equal(drawn.get_state(), due.get_state())


def test_model_that_copies_another_length_is_as_good_as_chance():
    assert measure(RIGHT, Copy(bits=3, length=(5, 5)), 200).errors / 15 == pytest.approx(0.5, abs=0.05)


def test_same_seed_draws_the_same_sequences_and_another_seed_others():
    first, again, other = (measure(SILENT, FOUR, 60, seed) for seed in (1, 1, 2))
    assert first == again != other


def test_batches_draw_different_sequences():
    assert measure(SILENT, FOUR, 50, seed=1).errors != measure(SILENT, FOUR, 100, seed=1).errors


def test_measuring_leaves_generator_gradients_and_model_unchanged():
    before = torch.get_rng_state()
    for training in (True, False):
        RIGHT.train(training)
        measure(RIGHT, FOUR, 10)
        assert RIGHT.training is training
    assert RIGHT.certainty.grad is None
    assert torch.equal(torch.get_rng_state(), before)


def test_model_that_cannot_be_measured_is_left_as_it_was():
    for training in (True, False):
        RIGHT.train(training)
        with pytest.raises(ValueError, match="inputs must be of shape"):
            measure(RIGHT, Copy(bits=4, length=(4, 4)), 10)
        assert RIGHT.training is training


def test_model_is_measured_without_its_dropout():
    config = tiny.preset("dnc").model
    model = build("dnc", dataclasses.asdict(dataclasses.replace(config, bypass_dropout=0.9)))
    task = Copy(bits=2, length=(6, 6))
    assert measure(model, task, 30, seed=1) == measure(model, task, 30, seed=1)


def test_seeds_of_measurements_differ_from_those_of_runs():
    seeds = {EVALUATION_SEED, CHOICE_SEED, VALIDATION_SEED}
    assert len(seeds) == 3
    assert min(seeds) > 1_000_000


# Errors that no model can avoid


def test_excess_cost_of_guessing_is_cost_minus_optimum():
    task = NGrams(order=3, length=(40, 40))
    silent = build("rnn", {"input_size": 1, "output_size": 1, "controller": {"kind": "lstm", "hidden_size": 4}})
    torch.nn.init.zeros_(silent.output.weight)
    torch.nn.init.zeros_(silent.output.bias)
    measured = measure(silent, task, 60, seed=1)
    generator = torch.Generator().manual_seed(1)
    optimum = torch.cat([task.optimum(task.sample(generator, rows)) for rows in (50, 10)])
    assert measured.errors == pytest.approx(38, rel=1e-5)
    assert measured.optimum == pytest.approx(optimum.mean().item(), rel=1e-5)
    assert measured.excess == pytest.approx(38 - optimum.mean().item(), rel=1e-4)
    assert 0 < measured.excess < 38


def test_all_errors_are_in_excess_where_none_need_be():
    measured = measure(WRONG, FOUR, 10)
    assert measured.optimum is None
    assert measured.excess == measured.errors == 12.0


# The cost in bits


def test_cost_of_guessing_is_one_bit_per_bit():
    measured = measure(SILENT, FOUR, 60)
    assert measured.cost == pytest.approx(12.0)
    assert 5 < measured.errors < 7


def test_cost_of_a_sure_error_exceeds_a_bit():
    assert measure(WRONG, FOUR, 10).cost == pytest.approx(12 * math.log2(1 + math.exp(10)), rel=1e-5)


def test_costs_of_mixed_sizes_are_means_over_sequences():
    measured = measure(SILENT, TASK, 120, seed=1)
    assert measured.cost == pytest.approx(measured.asked)


def test_answers_that_are_no_bits_have_no_cost():
    task = DyckWords(length=(4, 4))
    values = task.model_values | {"controller": {"kind": "lstm", "hidden_size": 4}}
    values["embedding"] = values["embedding"] | {"size": 4}
    assert measure(build("rnn", values), task, 20).cost is None


# Several measurements


def test_rows_hold_the_points_and_their_errors():
    points = [Point({"length": 9}), Point({"length": 4}, target=0.5, published="none")]
    far, fitting = evaluate(RIGHT, TASK, points, 60, seed=1)
    assert fitting == {
        "options": {"length": 4},
        "memory_size": None,
        "sequences": 60,
        "errors": 0.0,
        "cost": pytest.approx(12 * math.log2(1 + math.exp(-10)), rel=0.01),
        "asked": 12.0,
        "wrong_sequences": 0,
        "optimum": None,
        "unit": "wrong bits",
        "seed": 1,
        "target": 0.5,
        "published": "none",
    }
    assert (far["options"], far["asked"], far["target"], far["published"]) == ({"length": 9}, 27.0, None, None)
    assert far["errors"] > 0


def test_row_is_yielded_as_soon_as_it_is_known():
    rows = evaluate(RIGHT, TASK, iter([Point({"length": 4}), Point({"length": "no length"})]), 10)
    assert next(rows)["errors"] == 0.0
    with pytest.raises(ValueError, match="length"):
        next(rows)


@pytest.mark.parametrize("model", ["dnc", "ntm"])
def test_model_is_measured_at_the_requested_memory_size(model):
    trained, slots = Trainer(tiny.preset(model)).model, []
    by_torch = TorchUnroll(trained)
    unroll = lambda inputs, state, lengths: slots.append(state.memory.shape[1]) or by_torch(inputs, state, lengths)  # noqa: E731
    for memory_size in (None, 21):
        measure(trained, Copy(bits=2), 5, memory_size=memory_size, unroll=unroll)
    assert slots == [8, 21]


@pytest.mark.parametrize("model", ["dnc", "ntm"])
def test_row_holds_the_memory_size(model):
    trained = Trainer(tiny.preset(model)).model
    rows = list(evaluate(trained, Copy(bits=2), [Point({}), Point({}, memory_size=21)], 5))
    assert [row["memory_size"] for row in rows] == [8, 21]


def test_points_of_rows_are_those_that_were_measured():
    points = [Point({"length": 4}, None, 0.5, "none"), Point({"length": [2, 3]}), Point({})]
    rows = list(evaluate(RIGHT, TASK, points, 5))
    assert points_of(rows) == points
    assert list(evaluate(RIGHT, TASK, points_of(rows), 5)) == rows


def test_row_of_a_task_with_an_optimum_has_it():
    model = build("rnn", {"input_size": 1, "output_size": 1, "controller": {"kind": "lstm", "hidden_size": 4}})
    (row,) = evaluate(model, NGrams(order=2, length=(20, 20)), [Point({})], 10)
    assert row["unit"] == "bits of cost"
    assert 0 < row["optimum"] < 19
    assert math.isfinite(row["errors"])
