"""The key-value task by hand."""

from collections import Counter

import pytest

from models.config import ConfigError
from tests.training.tasks.situations import generator
from training.tasks import KeyValueRecall
from training.tasks.key_value import different_keys


def decoded(task, episode, row):
    """Return the values written to each key, in order, and the queries, in order: keys and values as tuples."""
    bits, query = task.bits, int(episode.inputs[:, row, 2 * task.bits].argmax())
    steps = [tuple(step) for step in episode.inputs[:, row].int().tolist()]
    written = [(step[:bits], step[bits : 2 * bits]) for step in steps[:query]]
    answers = [tuple(step) for step in episode.targets[query + 1 :, row].int().tolist()]
    return written, list(zip((step[:bits] for step in steps[query + 1 :]), answers, strict=True))


def test_episode_of_two_pairs_is_shown_then_asked_for():
    inputs, targets, mask, _ = KeyValueRecall(bits=2, pairs=(2, 2), overwrites=(0, 0)).sample(generator(), 1)

    (a, b, p, q, _), (c, d, r, s, _) = inputs[:2, 0].tolist()
    answers = {(a, b): [p, q], (c, d): [r, s]}
    (e, f, *rest), (g, h, *others) = inputs[3:, 0].tolist()
    assert rest == others == [0, 0, 0]
    assert inputs[2, 0].tolist() == [0, 0, 0, 0, 1]
    assert {(e, f), (g, h)} == {(a, b), (c, d)}
    assert targets[:, 0].tolist() == [[0, 0], [0, 0], [0, 0], answers[e, f], answers[g, h]]
    assert mask[:, 0].tolist() == [0, 0, 0, 1, 1]


def test_last_value_of_a_key_is_the_answer():
    task = KeyValueRecall(bits=6, pairs=(5, 5), overwrites=(7, 7))
    episode = task.sample(generator(), 50)
    for row in range(50):
        written, asked = decoded(task, episode, row)
        assert dict(asked) == dict(written)  # of several values of a key, a dict keeps the last
        assert (len(written), len(asked), len(dict(asked))) == (12, 5, 5)


def test_first_value_of_a_key_is_often_not_the_answer():
    task = KeyValueRecall(pairs=(4, 4), overwrites=(4, 4))
    episode = task.sample(generator(), 100)
    rows = [decoded(task, episode, row) for row in range(100)]
    stale = [dict(reversed(written))[key] != answer for written, asked in rows for key, answer in asked]
    assert 0.5 < sum(stale) / len(stale) < 0.8  # 1 - (3/4)^4 = 0.68 have another value


def test_queries_come_in_another_order_than_the_keys():
    task = KeyValueRecall(pairs=(3, 3), overwrites=(0, 0))
    episode = task.sample(generator(), 600)
    orders = Counter()
    for row in range(600):
        written, asked = decoded(task, episode, row)
        keys = [key for key, _ in written]
        orders[tuple(keys.index(key) for key, _ in asked)] += 1
    assert len(orders) == 6
    assert all(65 < count < 135 for count in orders.values())


def test_first_query_is_any_of_all_possible_keys():
    task = KeyValueRecall(bits=2, pairs=(4, 4), overwrites=(0, 0))
    first = Counter(tuple(key) for key in task.sample(generator(), 400).inputs[5, :, :2].int().tolist())
    assert len(first) == 4
    assert all(70 < count < 130 for count in first.values())


def test_overwrites_come_between_other_keys_too():
    task = KeyValueRecall(pairs=(3, 3), overwrites=(1, 1))
    episode = task.sample(generator(), 400)
    rows = [[key for key, _ in decoded(task, episode, row)[0]] for row in range(400)]
    again = Counter(next(place for place in range(4) if keys[place] in keys[:place]) for keys in rows)
    assert {place: again[place] > 40 for place in again} == {1: True, 2: True, 3: True}


def test_keys_differ_even_if_all_possible_are_needed():
    keys = different_keys(generator(), 20, 8, 3)
    numbers = (keys * keys.new_tensor([1, 2, 4])).sum(2)
    assert numbers.sort(0).values.T.tolist() == [list(range(8))] * 20


def test_keys_every_set_of_them_is_as_likely():
    keys = different_keys(generator(), 1200, 2, 2)
    pairs = (keys * keys.new_tensor([1, 2])).sum(2).sort(0).values.T.tolist()
    counts = Counter(map(tuple, pairs))
    assert set(counts) == {(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)}
    assert all(150 < count < 250 for count in counts.values())


def test_keys_of_many_bits_use_them_all():
    keys = different_keys(generator(), 200, 3, 62)
    assert ((keys.mean((0, 1)) > 0.4) & (keys.mean((0, 1)) < 0.6)).all()


def test_numbers_of_pairs_and_overwrites_are_drawn_from_their_ranges():
    task, draw = KeyValueRecall(bits=3, pairs=(1, 2), overwrites=(0, 1)), generator()
    episodes = [task.sample(draw, 1) for _ in range(200)]
    sizes = Counter((len(episode.mask), int(episode.mask.sum())) for episode in episodes)
    assert set(sizes) == {(3, 1), (4, 1), (5, 2), (6, 2)}
    assert all(count > 30 for count in sizes.values())


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"bits": 0}, "KeyValueRecall.bits must be at least 1, got 0"),
        ({"bits": 63}, "KeyValueRecall.bits must be at most 62, got 63"),
        (
            {"overwrites": (-1, 2)},
            "KeyValueRecall.overwrites must be [least, greatest] with 0 <= least <= greatest, got [-1, 2]",
        ),
        *(
            (
                {"bits": 2, "pairs": pairs},
                "KeyValueRecall.pairs must be within [1, 4], for there are no more different keys of 2 bits, "
                f"got {list(pairs)}",
            )
            for pairs in [(0, 4), (1, 5)]
        ),
    ],
)
def test_bad_option_is_named(options, complaint):
    with pytest.raises(ConfigError) as caught:
        KeyValueRecall(**options)
    assert str(caught.value) == complaint
