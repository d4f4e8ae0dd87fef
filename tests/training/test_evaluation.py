"""Counting wrong bits, of models made by hand whose errors are known."""

import dataclasses

import pytest
import torch

from tests.training.delay_line import DelayLine
from training.evaluation import EVALUATION_SEED, LengthErrors, bit_errors, evaluate
from training.tasks import Copy
from training.trainer import VALIDATION_SEED

TASK = Copy(bits=3, max_length=5)
RIGHT = DelayLine(TASK, 4)
WRONG = DelayLine(TASK, 4, certainty=-10.0)
SILENT = DelayLine(TASK, 4, certainty=0.0)
"""Says 0 everywhere: its errors are the ones asked for."""


def ones_drawn(length, batches, seed):
    generator = torch.Generator().manual_seed(seed)
    episodes = [TASK.sample(generator, rows, length) for rows in batches]
    return torch.cat([episode.targets.sum((0, 2)) for episode in episodes]).tolist()


@pytest.mark.parametrize("sequences", [1, 50, 120])
def test_errors_of_a_model_that_is_always_right_are_none(sequences):
    assert bit_errors(RIGHT, TASK, 4, sequences, seed=1).tolist() == [0] * sequences


@pytest.mark.parametrize("sequences", [1, 50, 120])
def test_errors_of_a_model_that_is_always_wrong_are_all_bits(sequences):
    assert bit_errors(WRONG, TASK, 4, sequences, seed=1).tolist() == [12] * sequences


def test_errors_are_counted_for_each_sequence_over_all_batches():
    assert bit_errors(SILENT, TASK, 4, 120, seed=1).tolist() == ones_drawn(4, [50, 50, 20], seed=1)


def test_model_that_copies_another_length_is_as_good_as_chance():
    errors = bit_errors(RIGHT, TASK, 5, 200, seed=1).mean().item()
    assert errors / 15 == pytest.approx(0.5, abs=0.05)


def test_same_seed_draws_the_same_sequences_and_another_seed_others():
    first, again, other = (bit_errors(SILENT, TASK, 4, 60, seed).tolist() for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_batches_draw_different_sequences():
    errors = bit_errors(SILENT, TASK, 4, 100, seed=1).tolist()
    assert errors[:50] != errors[50:]


def test_counting_leaves_the_global_generator_and_the_gradients_alone():
    before = torch.get_rng_state()
    assert not bit_errors(RIGHT, TASK, 4, 10, seed=1).requires_grad
    assert torch.equal(torch.get_rng_state(), before)


def test_rows_say_the_errors_at_each_length_in_the_order_asked_for():
    right_at_4 = LengthErrors(length=4, sequences=60, errors_per_sequence=0.0, wrong_sequences=0, bits_per_sequence=12)
    long, short, fitting = evaluate(RIGHT, TASK, [9, 1, 4], 60, seed=1)
    assert fitting == right_at_4
    assert (long.length, long.bits_per_sequence, short.length, short.bits_per_sequence) == (9, 27, 1, 3)
    assert long.errors_per_sequence > 0


def test_row_counts_wrong_sequences_and_means_over_all():
    errors = ones_drawn(1, [40], seed=1)
    (row,) = evaluate(SILENT, TASK, [1], 40, seed=1)
    assert row.errors_per_sequence == pytest.approx(sum(errors) / 40)
    assert row.wrong_sequences == sum(error > 0 for error in errors) < 40


def test_row_is_told_as_soon_as_it_is_known():
    told = []
    rows = evaluate(RIGHT, TASK, iter([1, 4]), 10, after_length=told.append)
    assert told == rows
    assert [field.name for field in dataclasses.fields(rows[0])] == [
        "length",
        "sequences",
        "errors_per_sequence",
        "wrong_sequences",
        "bits_per_sequence",
    ]


def test_default_seed_is_never_that_of_training_or_validation():
    default = evaluate(SILENT, TASK, [4], 100)
    assert default == evaluate(SILENT, TASK, [4], 100, seed=EVALUATION_SEED)
    assert EVALUATION_SEED != VALIDATION_SEED
    assert min(EVALUATION_SEED, VALIDATION_SEED) > 1_000_000
