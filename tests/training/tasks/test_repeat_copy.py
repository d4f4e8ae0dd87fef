"""The repeat copy task by hand."""

import math

import pytest
from torch.testing import assert_close

from models.config import ConfigError
from tests.training.tasks.situations import generator
from training.tasks import RepeatCopy


def test_episode_of_two_vectors_twice_ends_with_the_marker():
    task = RepeatCopy(bits=1, length=(2, 2), repeats=(2, 2), repeats_scale=4)
    inputs, targets, mask, _ = task.sample(generator(), 1)

    a, b = inputs[1:3, 0, 0].tolist()
    assert_close(inputs[3, 0].tolist(), [0.0, 0.0, -math.sqrt(0.2)])  # 2, where the mean is 2.5, the variance 1.25
    assert inputs[:3, 0].tolist() == [[0, 1, 0], [a, 0, 0], [b, 0, 0]]
    assert not inputs[4:].any()
    assert targets[:, 0].tolist() == [*[[0, 0]] * 4, [a, 0], [b, 0], [a, 0], [b, 0], [0, 1]]
    assert mask[:, 0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 1]


def test_number_of_repeats_stands_behind_the_vectors():
    inputs = RepeatCopy(bits=1, length=(2, 2), repeats=(4, 4), repeats_scale=4).sample(generator(), 2).inputs
    assert_close(inputs[3, 1].tolist(), [0.0, 0.0, math.sqrt(1.8)])
    assert not inputs[4:].any()


def test_number_of_repeats_is_normalised_over_its_scale():
    task = RepeatCopy(repeats_scale=10)
    values = [task.normalised(repeats) for repeats in range(1, 11)]
    assert math.isclose(sum(values), 0, abs_tol=1e-12)
    assert math.isclose(sum(value**2 for value in values) / 10, 1)


def test_number_of_repeats_is_the_same_beyond_training():
    task = RepeatCopy(repeats=(1, 10))
    assert task.with_options({"repeats": [20, 20]}).normalised(10) == task.normalised(10)


def test_marker_counts_among_the_bits_asked_for():
    task = RepeatCopy(bits=8, length=(10, 10), repeats=(10, 10))
    assert task.asked(task.sample(generator(), 2)).tolist() == [909, 909]


def test_sizes_drawn_are_independent():
    task, draw = RepeatCopy(bits=1, length=(1, 2), repeats=(1, 2)), generator()
    steps = [len(task.sample(draw, 1).mask) for _ in range(200)]
    assert set(steps) == {5, 6, 7, 9}  # length (repeats + 1) + 3
    assert all(steps.count(number) > 30 for number in set(steps))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"bits": 0}, "RepeatCopy.bits must be at least 1, got 0"),
        (
            {"repeats_scale": 11},
            "RepeatCopy.repeats_scale must be even, for the middle of an odd one is shown as 0, like silence, got 11",
        ),
        ({"repeats_scale": 1}, "RepeatCopy.repeats_scale must be at least 2, got 1"),
        (
            {"repeats": (0, 3)},
            "RepeatCopy.repeats must be [least, greatest] with 1 <= least <= greatest, got [0, 3]",
        ),
    ],
)
def test_bad_option_is_named(options, complaint):
    with pytest.raises(ConfigError) as caught:
        RepeatCopy(**options)
    assert str(caught.value) == complaint
