"""The n-grams task by hand, and its optimum against a loop and against chance."""

import math

import pytest
import torch
from torch.testing import assert_close

from models.config import ConfigError
from tests.training.tasks.situations import generator
from training.tasks import Episode, NGrams, join


def episode_of(bits, order):
    """Return the episode of one sequence of bits, in the task's layout."""
    sequence = torch.tensor([float(bit) for bit in bits]).reshape(-1, 1, 1)
    asked = torch.arange(len(bits) - 1).unsqueeze(1) >= order - 2
    return Episode(sequence[:-1], sequence[1:], asked.float())


def optimum_by_loop(bits, order):
    """Return the cost in bits of saying each bit by (N1 + 1/2) / (N0 + N1 + 1) of its context so far."""
    cost = 0.0
    for place in range(order - 1, len(bits)):
        context = bits[place - order + 1 : place]
        ends = range(order - 1, place)
        followed = [bits[end] for end in ends if bits[end - order + 1 : end] == context]
        one = (followed.count("1") + 0.5) / (len(followed) + 1)
        cost -= math.log2(one if bits[place] == "1" else 1 - one)
    return cost


def as_text(episode, row=0):
    sequence = torch.cat([episode.inputs[:1, row], episode.targets[:, row]])[:, 0]
    return "".join(str(int(bit)) for bit in sequence)


def test_episode_asks_for_bits_after_a_whole_context():
    inputs, targets, mask, _ = NGrams(order=3, length=(6, 6)).sample(generator(), 4)
    assert inputs.shape == (5, 4, 1)
    assert torch.equal(inputs[1:], targets[:-1])
    assert mask.T.tolist() == [[0, 1, 1, 1, 1]] * 4


def test_bits_follow_their_context_with_chances_of_the_beta_distribution():
    episode = NGrams(order=2, length=(1001, 1001)).sample(generator(), 400)
    after_one = episode.inputs[:, :, 0] == 1
    share = (episode.targets[:, :, 0] * after_one).sum(0) / after_one.sum(0)
    extreme = ((share < 0.1) | (share > 0.9)).float().mean()
    assert abs(extreme - 4 / math.pi * math.asin(math.sqrt(0.1))) < 0.08  # 0.41; 0.2, if they were uniform


def test_chances_differ_between_sequences_and_not_along_one():
    episode = NGrams(order=2, length=(2001, 2001)).sample(generator(), 50)
    after_one = episode.inputs[:, :, 0] == 1
    halves = [
        (episode.targets[half, :, 0] * after_one[half]).sum(0) / after_one[half].sum(0)
        for half in (slice(1000), slice(1000, 2000))
    ]
    often = after_one.sum(0) > 500
    assert (halves[0] - halves[1])[often].abs().max() < 0.2
    assert halves[0][often].std() > 0.2


def test_first_bits_are_fair():
    first = NGrams(order=3, length=(6, 6)).sample(generator(), 1000).inputs[:2]
    assert (first.mean((1, 2)) - 0.5).abs().max() < 0.05


def test_errors_are_the_bits_that_the_predictions_cost():
    task = NGrams(order=2, length=(4, 4))
    outputs = torch.tensor([math.log(3), 0.0, -math.log(7)]).reshape(3, 1, 1)  # of a one: 3/4, 1/2, 1/8
    assert_close(task.errors(outputs, episode_of("0110", 2)), torch.tensor([math.log2(4 / 3) + 1 + math.log2(8 / 7)]))


def test_errors_of_knowing_nothing_are_one_a_bit_asked_for():
    task = NGrams(order=3, length=(9, 9))
    episode = task.sample(generator(), 3)
    assert_close(task.errors(torch.zeros(8, 3, 1), episode), torch.full((3,), 7.0))
    assert task.asked(episode).tolist() == [7, 7, 7]


def test_optimum_of_four_bits_by_hand():
    # After 0 comes 1: 1/2. After 1 comes 1: 1/2. After 1, which was followed by 1, comes 0: 1 - (1 + 1/2) / 2.
    assert NGrams(order=2, length=(4, 4)).optimum(episode_of("0110", 2)).tolist() == [1 + 1 + 2]


@pytest.mark.parametrize("order", [2, 3, 6])
def test_optimum_agrees_with_a_loop_over_contexts(order):
    task = NGrams(order=order, length=(40, 60))
    episode = join(task.sample(generator(seed), 2) for seed in range(3))
    steps = [int(length) for length in episode.lengths]
    texts = [as_text(episode, row)[: steps[row] + 1] for row in range(6)]
    assert_close(task.optimum(episode), torch.tensor([optimum_by_loop(text, order) for text in texts]))


def test_optimum_is_below_chance_by_more_the_longer_the_sequence():
    costs = [
        (task.optimum(episode) / task.asked(episode)).mean().item()
        for task in (NGrams(order=4, length=(length, length)) for length in (20, 200, 1000))
        for episode in [task.sample(generator(), 100)]
    ]
    assert 1 > costs[0] > costs[1] > costs[2] > 0.5


def test_optimum_of_two_hundred_bits_beats_any_constant():
    task = NGrams()
    episode = task.sample(generator(), 200)
    best = min(task.errors(torch.full((199, 200, 1), logit), episode).mean() for logit in (-1.0, -0.5, 0.0, 0.5, 1.0))
    assert task.optimum(episode).mean() < 0.8 * best


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"order": 1}, "NGrams.order must be at least 2, got 1"),
        ({"order": 6, "length": (6, 9)}, "NGrams.length must be more than order 6, got 6"),
    ],
)
def test_bad_option_is_named(options, complaint):
    with pytest.raises(ConfigError) as caught:
        NGrams(**options)
    assert str(caught.value) == complaint
