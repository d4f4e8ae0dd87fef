"""The associative recall task by hand."""

import pytest

from models.config import ConfigError
from tests.training.tasks.situations import generator
from training.tasks import AssociativeRecall
from training.tasks.base import draw, random_bits


def test_episode_of_two_items_asks_for_the_second():
    inputs, targets, mask, _ = AssociativeRecall(bits=1, item_length=2, items=(2, 2)).sample(generator(), 1)

    (a,), (b,) = inputs[1:3, 0, :1].tolist()
    (c,), (d,) = inputs[4:6, 0, :1].tolist()
    item, query, silence = [0, 1, 0], [0, 0, 1], [0, 0, 0]
    shown = [item, [a, 0, 0], [b, 0, 0], item, [c, 0, 0], [d, 0, 0]]
    asked = [query, [a, 0, 0], [b, 0, 0], query, silence, silence]
    assert inputs[:, 0].tolist() == shown + asked
    assert targets[:, 0].tolist() == [[0]] * 10 + [[c], [d]]
    assert mask[:, 0].tolist() == [0] * 10 + [1, 1]


def test_episode_has_the_steps_that_the_picture_says():
    assert len(AssociativeRecall(item_length=3, items=(6, 6)).sample(generator(), 2).mask) == 6 * 4 + 8


def test_query_is_any_item_but_the_last():
    episode = AssociativeRecall(bits=6, item_length=1, items=(4, 4)).sample(generator(), 300)
    items = [[tuple(step) for step in row] for row in episode.inputs[1:8:2, :, :6].transpose(0, 1).tolist()]
    queries = [tuple(row) for row in episode.inputs[9, :, :6].tolist()]
    answers = [tuple(row) for row in episode.targets[-1].tolist()]
    places = [row.index(query) for row, query in zip(items, queries, strict=True)]
    assert {place: places.count(place) > 60 for place in places} == {0: True, 1: True, 2: True}
    assert [row[place + 1] for row, place in zip(items, places, strict=True)] == answers


def test_items_differ_even_if_all_possible_are_needed():
    episode = AssociativeRecall(bits=1, item_length=2, items=(4, 4)).sample(generator(), 3)
    for row in episode.inputs[:12, :, 0].unflatten(0, (4, 3))[:, 1:].permute(2, 0, 1).tolist():
        assert sorted(row) == [[0, 0], [0, 1], [1, 0], [1, 1]]


def test_items_that_are_all_possible_need_no_redraw():
    task = AssociativeRecall(bits=6, item_length=1, items=(64, 64))
    items = task.sample(generator(), 5).inputs[1:128:2, :, :6]
    for row in items.transpose(0, 1):
        assert len(row.unique(dim=0)) == 64


def test_items_of_a_nearly_full_set_are_uniform():
    first = AssociativeRecall(bits=2, item_length=1, items=(3, 3)).sample(generator(), 800).inputs[1, :, :2]
    _, counts = first.unique(dim=0, return_counts=True)
    assert len(counts) == 4
    assert counts.min() > 150


def test_items_of_which_there_are_many_are_drawn_as_bits():
    episode = AssociativeRecall(bits=6, item_length=3, items=(6, 6)).sample(generator(), 2)
    again = generator()
    draw(again, (6, 6))
    items = random_bits(again, 6, 3, 2, 6)
    assert episode.inputs[:24].unflatten(0, (6, 4))[:, 1:, :, :6].equal(items)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"item_length": 0}, "AssociativeRecall.item_length must be at least 1, got 0"),
        (
            {"items": (1, 4)},
            "AssociativeRecall.items must be [least, greatest] with 2 <= least <= greatest, got [1, 4]",
        ),
        (
            {"bits": 1, "item_length": 2, "items": (2, 5)},
            "AssociativeRecall.items must be at most 4, for there are no more different items of 2 vectors of 1 bits, "
            "got 5",
        ),
    ],
)
def test_bad_option_is_named(options, complaint):
    with pytest.raises(ConfigError) as caught:
        AssociativeRecall(**options)
    assert str(caught.value) == complaint
