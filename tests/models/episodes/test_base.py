"""Sizes of samples: drawn, asked for, refused, and within the limits of steps and memory."""

import numpy as np
import pytest

from models.episodes import source_of
from models.episodes.base import MOST_STEPS, SizeError, choose, draw, fitting, limit
from models.episodes.copy_recall import CopyRecall
from models.episodes.copying import Copy, RepeatCopy
from models.episodes.recall import AssociativeRecall, KeyValueRecall, different_vectors


def refusal(source, **asked):
    with pytest.raises(SizeError) as refused:
        choose(source, 1, asked)
    return str(refused.value)


def test_sizes_are_drawn_from_the_ranges_of_training():
    drawn = [choose(RepeatCopy(length=(2, 4), repeats=(1, 3)), seed, {}) for seed in range(100)]
    assert {chosen["length"] for chosen in drawn} == {2, 3, 4}
    assert {chosen["repeats"] for chosen in drawn} == {1, 2, 3}


def test_size_that_is_asked_for_leaves_the_others_as_drawn():
    source = RepeatCopy()
    assert choose(source, 5, {"length": "7"}) == choose(source, 5, {}) | {"length": 7}


def test_same_seed_gives_the_same_sample_on_every_machine():
    sample = draw(Copy(bits=4, length=(3, 3)), 7, {"length": 3})
    assert sample.pattern.tolist() == PINNED
    other = draw(Copy(bits=4, length=(3, 3)), 8, {"length": 3})
    assert other.pattern.tolist() != PINNED


PINNED = [[1, 1, 1, 0], [0, 0, 0, 0], [1, 0, 1, 1]]
"""The vectors of seed 7."""


def test_longer_sample_begins_like_the_shorter_one():
    source = Copy()
    short, long = (draw(source, 3, {"length": length}).pattern for length in (5, 60))
    assert (long[:5] == short).all()


@pytest.mark.parametrize(
    ("source", "asked", "message"),
    [
        (Copy(), {"length": "0"}, "length: expected a whole number from 1 to 499, got 0"),
        (Copy(), {"length": "500"}, "length: expected a whole number from 1 to 499, got 500"),
        (Copy(), {"length": "2.5"}, "length: expected a whole number, got 2.5"),
        (Copy(), {"length": "9" * 5000}, "length: expected a whole number, got 9"),
        (Copy(), {"repeats": "2"}, "repeats: expected one of length, got 2"),
        (RepeatCopy(), {"length": "400", "repeats": "2"}, "length: expected a whole number from 1 to 332, got 400"),
        (AssociativeRecall(), {"items": "3", "query": "2"}, "query: expected a whole number from 0 to 1, got 2"),
        (KeyValueRecall(bits=3), {"pairs": "9"}, "pairs: expected a whole number from 1 to 8, got 9"),
    ],
)
def test_size_that_no_sample_has_is_refused_by_name(source, asked, message):
    assert refusal(source, **asked).startswith(message)


def test_drawn_size_makes_room_for_one_that_is_asked_for():
    source = RepeatCopy(length=(10, 10), repeats=(10, 10))
    chosen = choose(source, 1, {"length": "400"})
    assert chosen == {"length": 400, "repeats": 1}
    assert source.most_steps(chosen) <= MOST_STEPS


def test_limit_of_a_size_depends_on_the_others():
    source = RepeatCopy()
    length, _ = source.sizes({})
    limits = [limit(source, length, {"length": 1, "repeats": repeats}) for repeats in (1, 9)]
    assert limits == [498, 99]


def test_size_fits_up_to_the_memory():
    source = RepeatCopy()
    length, repeats = source.sizes({})
    chosen = {"length": 60, "repeats": 2}
    assert source.needed(chosen) == 60
    assert [fitting(source, size, chosen, 32) for size in (length, repeats)] == [32, None]


def test_sequence_of_two_tasks_has_the_phases_of_both():
    chosen = {"length": 5, "items": 3, "query": 1}
    sample = draw(CopyRecall(item_length=1), 1, chosen)
    steps = [("listen", 0, 7), ("say", 7, 12), ("listen", 12, 18), ("ask", 18, 21), ("say", 21, 22)]
    assert [tuple(phase) for phase in sample.phases] == steps
    assert [sample.labels[step] for step in (0, 1, 12, 13, 18, 21)] == ["start", "1", "item 0", "0.1", "query", "2.1"]


def test_locations_of_what_was_said_are_needed_no_more():
    source = CopyRecall()
    assert [source.needed({"length": length, "items": items}) for length, items in ((5, 3), (2, 6))] == [5, 6]


@pytest.mark.parametrize("count", [1, 5, 8])
def test_different_vectors_differ_up_to_all_there_are(count):
    vectors = different_vectors(np.random.default_rng(1), count, 3)
    assert len({tuple(vector) for vector in vectors.tolist()}) == count


def test_task_that_does_not_fit_the_model_has_no_source():
    values = {"name": "copy", "bits": 3}
    assert source_of(values, 5, 3) == Copy(bits=3)
    misfits = [(values, 5, 4), (values, 6, 3), (values | {"bits": "x"}, 5, 3), (values | {"bits": 0}, 2, 0)]
    assert [source_of(*misfit) for misfit in [*misfits, ({"name": "own"}, 5, 3), ({}, 5, 3)]] == [None] * 6


@pytest.mark.parametrize(
    ("values", "input_size", "output_size"),
    [
        ({"name": "ngrams", "order": 60}, 1, 1),
        ({"name": "associative-recall", "item_length": 10**9}, 8, 6),
        ({"name": "graph-traversal", "label_digits": 20}, 602, 600),
        ({"name": "copy", "bits": 10**7}, 10**7 + 2, 10**7),
    ],
)
def test_task_whose_least_sample_is_too_large_has_no_source(values, input_size, output_size):
    assert source_of(values, input_size, output_size) is None


def test_wide_vectors_make_samples_shorter():
    wide = Copy(bits=2**16)
    assert limit(wide, wide.sizes({})[0], {"length": 1}) == 14


def test_range_in_the_wrong_order_is_drawn_from():
    assert choose(Copy(length=(9, 9)), 1, {}) == {"length": 9}
    assert 3 <= choose(Copy(length=(5, 3)), 1, {})["length"] <= 5
