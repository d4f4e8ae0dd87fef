"""Samples of n-grams: their source, and the prediction that no model can better."""

import numpy as np

from models.episodes.base import draw
from models.episodes.ngrams import NGrams
from tests.models.episodes.encoding import episode_of
from training.tasks import NGrams as Trained


def test_optimum_costs_what_training_says():
    sample = draw(NGrams(order=4), 3, {"length": 200})
    episode = episode_of(sample)
    cost = -sum(
        np.log2(chance if bit else 1 - chance)
        for chance, bit in zip(sample.facts["optimum"], episode.targets.flatten().tolist(), strict=True)
        if chance is not None
    )
    assert np.isclose(cost, Trained(order=4).optimum(episode).item(), rtol=1e-5)


def test_bits_follow_the_table_of_their_source():
    sample = draw(NGrams(order=2), 5, {"length": 1000})
    bits, table = sample.pattern[:, 0].astype(int), sample.facts["table"]
    for context in (0, 1):
        after = bits[1:][bits[:-1] == context]
        assert abs(after.mean() - table[context]) < 0.1


def test_memory_keeps_a_count_of_each_context_that_can_occur():
    source = NGrams(order=6)
    assert [source.needed({"length": length}) for length in (200, 10)] == [32, 5]
