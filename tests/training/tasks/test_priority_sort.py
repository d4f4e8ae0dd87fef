"""The priority sort task by hand."""

import pytest

from models.config import ConfigError
from tests.training.tasks.situations import generator
from training.tasks import PrioritySort


def test_episode_asks_for_the_vectors_of_highest_priority_in_order():
    inputs, targets, mask, _ = PrioritySort(bits=5, items=(4, 4), share=0.5).sample(generator(), 1)

    shown = inputs[:4, 0].tolist()
    by_priority = sorted(shown, key=lambda step: -step[5])
    assert [step[6] for step in shown] == [0] * 4
    assert inputs[4:, 0].tolist() == [[0, 0, 0, 0, 0, 0, 1], [0] * 7, [0] * 7]
    assert targets[:, 0].tolist() == [*[[0] * 5] * 5, by_priority[0][:5], by_priority[1][:5]]
    assert mask[:, 0].tolist() == [0, 0, 0, 0, 0, 1, 1]


def test_order_is_that_of_each_sequence():
    episode = PrioritySort(bits=8, items=(20, 20)).sample(generator(), 30)
    for row in range(30):
        by_priority = sorted(episode.inputs[:20, row].tolist(), key=lambda step: -step[8])
        assert episode.targets[21:, row].tolist() == [step[:8] for step in by_priority[:16]]


def test_priorities_are_uniform_between_minus_one_and_one():
    priorities = PrioritySort().sample(generator(), 200).inputs[:20, :, 8]
    assert -1 <= priorities.min() < -0.99
    assert 0.99 < priorities.max() <= 1
    assert abs(priorities.mean()) < 0.03
    assert abs(priorities.var() - 1 / 3) < 0.02


@pytest.mark.parametrize(("items", "share", "asked"), [(20, 0.8, 16), (1, 0.1, 1), (3, 1.0, 3), (10, 0.26, 3)])
def test_share_of_the_items_is_asked_but_at_least_one(items, share, asked):
    task = PrioritySort(bits=2, items=(items, items), share=share)
    episode = task.sample(generator(), 2)
    assert len(episode.mask) == items + 1 + asked
    assert task.asked(episode).tolist() == [2 * asked] * 2


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"bits": 0}, "PrioritySort.bits must be at least 1, got 0"),
        ({"share": 0.0}, "PrioritySort.share must be in (0, 1], got 0.0"),
        ({"share": 1.1}, "PrioritySort.share must be in (0, 1], got 1.1"),
        ({"share": float("nan")}, "PrioritySort.share must be in (0, 1], got nan"),
    ],
)
def test_bad_option_is_named(options, complaint):
    with pytest.raises(ConfigError) as caught:
        PrioritySort(**options)
    assert str(caught.value) == complaint
