"""Samples of Dyck words: half are valid, and all sizes occur."""

from collections import Counter

import numpy as np
import torch

from models.episodes.base import draw
from models.episodes.dyck import DyckWords, is_valid
from training.tasks.dyck import is_valid as is_valid_in_training


def test_words_are_valid_as_training_says():
    words = np.random.default_rng(1).integers(0, 4, (500, 4))
    expected = is_valid_in_training(torch.from_numpy(words)).tolist()
    assert [is_valid(word) for word in words.tolist()] == expected
    assert 0 < sum(expected) < 500


def test_half_of_the_words_are_valid_in_all_shapes():
    drawn = [draw(DyckWords(kinds=2), seed, {"length": 2}) for seed in range(800)]
    valid = Counter("".join(sample.pattern) for sample in drawn if sample.facts["valid"])
    assert 340 < valid.total() < 460
    assert len(valid) == 8
    assert min(valid.values()) > 25
