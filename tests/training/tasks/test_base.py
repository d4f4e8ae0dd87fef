"""Episodes, the measures of bit and answer tasks, and options that are ranges: by hand."""

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from models.config import ConfigError
from tests.training.tasks.situations import generator, right
from training.tasks import AnswerTask, Copy, Episode, RepeatCopy, build_task, join, task_values
from training.tasks.base import Range, draw


@dataclass(frozen=True)
class Digits(AnswerTask):
    """Answers of two digits, each 0, 1 or 2, to episodes made by hand."""

    length: Range = (1, 1)
    share: float = 1.0
    places: tuple[int, ...] = ()

    name = "digits"
    groups = 2
    classes = 3

    model_values: Any = None

    def sample(self, generator, batch_size):
        raise NotImplementedError

    def render(self, episode, row=0):
        raise NotImplementedError


DIGITS = Digits()


def asking(*columns):
    """Return an episode with digits due at these steps, one string a sequence, in which every answer is 1 2."""
    mask = torch.tensor([[float(mark == "?") for mark in column] for column in columns]).T
    targets = DIGITS.one_hot(torch.tensor([1, 2]).expand(*mask.shape, 2)) * mask.unsqueeze(2)
    return Episode(torch.zeros(*mask.shape, 1), targets, mask)


def test_draw_covers_its_range_evenly_and_nothing_else():
    source = generator()
    drawn = [draw(source, (2, 4)) for _ in range(300)]
    assert set(drawn) == {2, 3, 4}
    assert all(drawn.count(number) > 60 for number in (2, 3, 4))


# Episodes


def test_rows_of_an_episode_are_its_sequences_with_their_lengths():
    inputs = torch.arange(12.0).reshape(2, 3, 2)
    episode = Episode(inputs, inputs + 1, inputs[:, :, 0], torch.tensor([2, 1, 2])).rows(slice(1, 3))
    assert episode.inputs.tolist() == [[[2, 3], [4, 5]], [[8, 9], [10, 11]]]
    assert episode.targets.tolist() == [[[3, 4], [5, 6]], [[9, 10], [11, 12]]]
    assert episode.mask.tolist() == [[2, 4], [8, 10]]
    assert episode.lengths.tolist() == [1, 2]


def test_rows_of_an_episode_of_one_length_have_no_lengths():
    assert asking("??", "??").rows(slice(1)).lengths is None


def test_join_pads_the_shorter_sequences_with_zeros_at_their_ends():
    short, long = torch.full((1, 2, 1), 5.0), torch.full((3, 1, 1), 7.0)
    joined = join([Episode(short, short + 1, short[:, :, 0]), Episode(long, long + 1, long[:, :, 0])])
    assert joined.inputs[:, :, 0].tolist() == [[5, 5, 7], [0, 0, 7], [0, 0, 7]]
    assert joined.targets[:, :, 0].tolist() == [[6, 6, 8], [0, 0, 8], [0, 0, 8]]
    assert joined.mask.tolist() == [[5, 5, 7], [0, 0, 7], [0, 0, 7]]
    assert joined.lengths.tolist() == [1, 1, 3]


def test_join_of_episodes_already_padded_keeps_their_lengths():
    parts = [asking("?"), asking("..?"), asking("??")]
    joined = join([join(parts[:2]), parts[2]])
    assert joined.lengths.tolist() == [1, 3, 2]
    assert joined.mask.T.tolist() == [[1, 0, 0], [0, 0, 1], [1, 1, 0]]


# Bits


def test_bit_loss_is_the_mean_over_the_bits_asked_for():
    targets = torch.tensor([[[0.0, 0]], [[1, 0]], [[0, 1]]])
    episode = Episode(torch.zeros(3, 1, 4), targets, torch.tensor([[0.0], [1], [1]]))
    outputs = torch.tensor([[[9.0, -9]], [[2, 1]], [[-3, 0]]])
    by_hand = [math.log1p(math.exp(-2)), math.log1p(math.exp(1)), math.log1p(math.exp(-3)), math.log(2)]
    assert_close(Copy(bits=2).loss(outputs, episode).item(), sum(by_hand) / 4)


def test_bit_loss_weights_sequences_by_their_answers():
    task = Copy(bits=1)
    episode = Episode(torch.zeros(3, 2, 3), torch.zeros(3, 2, 1), torch.tensor([[1.0, 0], [1, 0], [1, 1]]))
    outputs = torch.zeros(3, 2, 1)
    outputs[2, 1] = 1
    assert_close(task.loss(outputs, episode).item(), (3 * math.log(2) + math.log1p(math.e)) / 4)


def test_bit_loss_has_no_gradient_where_nothing_is_asked_for():
    task = Copy(bits=3, length=(3, 3))
    outputs = torch.randn(8, 2, 3, requires_grad=True)
    task.loss(outputs, task.sample(generator(), 2)).backward()
    assert outputs.grad[:5].eq(0).all()
    assert outputs.grad[5:].ne(0).all()


def test_bit_errors_count_exactly_the_flipped_bits_of_each_row():
    task = Copy(bits=3, length=(4, 4))
    episode = task.sample(generator(), 3)
    outputs = right(episode)
    for step, row, bit in [(6, 0, 0), (6, 2, 0), (8, 2, 1), (9, 2, 2)]:
        outputs[step, row, bit] *= -1
    assert task.errors(outputs, episode).tolist() == [1, 0, 3]
    assert task.asked(episode).tolist() == [12, 12, 12]


def test_bit_of_logit_zero_counts_as_a_zero():
    task = Copy(bits=3)
    episode = task.sample(generator(), 4)
    ones = episode.targets.sum((0, 2))
    assert task.errors(torch.zeros_like(episode.targets), episode).tolist() == ones.tolist()


def test_bits_are_drawn_over_time_with_blanks():
    inputs = torch.tensor([[[1.0, 0]], [[0, 1]], [[0, 0]]])
    episode = Episode(inputs, inputs.flip(0), torch.tensor([[0.0], [1], [1]]))
    assert Copy(bits=2).render(episode).splitlines() == ["#..", ".#.", "---", " .#", " #."]


def test_bits_drawn_show_other_values_as_digits():
    inputs = torch.tensor([-2, -1, -0.9, -0.1, 0.1, 0.79, 0.99, 1.5]).reshape(8, 1, 1)
    episode = Episode(inputs, torch.zeros(8, 1, 1), torch.zeros(8, 1))
    assert Copy(bits=1).render(episode).splitlines()[0] == "00045899"


# Answers


def test_answer_loss_is_the_mean_over_the_digits_asked_for():
    episode = asking(".?")
    outputs = torch.tensor([[[9.0, 0, 0, 9, 0, 0]], [[0, 2, 0, 1, 0, 0]]])
    first = math.log(2 + math.exp(2)) - 2  # of 1, whose logit is 2 among 0 2 0
    second = math.log(2 + math.exp(1))  # of 2, whose logit is 0 among 1 0 0
    assert_close(DIGITS.loss(outputs, episode).item(), (first + second) / 2)


def test_answer_loss_at_chance_is_the_logarithm_of_the_classes():
    episode = asking("??.", "..?")
    assert_close(DIGITS.loss(torch.zeros(3, 2, 6), episode).item(), math.log(3))


def test_answer_with_one_wrong_digit_is_wrong():
    episode = asking("?.?", "?.?")
    outputs = right(episode)
    outputs[2, 1, 3] = 5
    assert DIGITS.errors(outputs, episode).tolist() == [0, 1]


def test_answer_of_several_steps_is_right_as_a_whole():
    episode = asking("???.??")
    for wrong, errors in [([], 0), ([1], 1), ([0, 1, 2], 1), ([2, 4], 2), ([0, 2, 4, 5], 2), ([3], 0)]:
        outputs = right(episode)
        outputs[wrong] *= -1
        assert DIGITS.errors(outputs, episode).tolist() == [errors]


def test_answers_are_counted_as_runs_of_steps_asked_for():
    episode = asking("???.??", "?.?.?.", ".....?", "??????", "......")
    assert DIGITS.asked(episode).tolist() == [2, 3, 1, 1, 0]


def test_answers_wrong_in_one_row_are_not_counted_in_another():
    episode = asking("?.?.?", "....?", "?????")
    outputs = right(episode)
    outputs[:, 0] *= -1
    assert DIGITS.errors(outputs, episode).tolist() == [3, 0, 0]


def test_digits_and_their_targets_are_inverse():
    digits = torch.tensor([[0, 2], [1, 1]])
    assert DIGITS.one_hot(digits).tolist() == [[1, 0, 0, 0, 0, 1], [0, 1, 0, 0, 1, 0]]
    assert DIGITS.digits(DIGITS.one_hot(digits)).tolist() == digits.tolist()


# Options


def test_sizes_are_the_options_that_are_ranges():
    assert RepeatCopy(length=(2, 3)).sizes == {"length": (2, 3), "repeats": (1, 10)}
    assert Digits(places=(3, 4)).sizes == {"length": (1, 1)}


def test_greatest_has_every_size_at_its_greatest():
    task = RepeatCopy(bits=3, length=(1, 4), repeats=(2, 5))
    assert task.greatest == RepeatCopy(bits=3, length=(4, 4), repeats=(5, 5))


def test_options_of_a_range_of_one_is_its_number():
    assert Copy(length=(20, 20)).options == {"bits": 8, "length": 20, "flags": "start-and-end"}
    assert Copy(length=(1, 20)).options == {"bits": 8, "length": [1, 20], "flags": "start-and-end"}


def test_options_number_for_a_range_is_both_its_ends():
    assert Copy().with_options({"length": 50}) == Copy(length=(50, 50))


def test_options_changed_leave_the_others():
    assert Copy(bits=3).with_options({"length": [2, 4]}) == Copy(bits=3, length=(2, 4))


def test_options_unknown_are_named_with_those_there_are():
    with pytest.raises(ConfigError) as caught:
        Copy().with_options({"lenght": 3})
    assert str(caught.value) == "task: unknown key 'lenght'; known keys are bits, length, flags"


@pytest.mark.parametrize("bounds", [(0, 4), (5, 4), (-1, -1)])
def test_range_out_of_order_or_too_low_is_named(bounds):
    with pytest.raises(ConfigError) as caught:
        Copy(length=bounds)
    expected = f"Copy.length must be [least, greatest] with 1 <= least <= greatest, got [{bounds[0]}, {bounds[1]}]"
    assert str(caught.value) == expected


@pytest.mark.parametrize("value", [[1], [1, 2, 3], "12", 2.0, None])
def test_range_that_is_none_is_named(value):
    with pytest.raises(ConfigError, match=r"task\.length: expected a list of 2, got"):
        build_task({"name": "copy", "length": value})


@pytest.mark.parametrize("name", ["sort", None, ["copy"]])
def test_task_unknown_is_refused_with_the_known_ones(name):
    with pytest.raises(ConfigError, match=r"task\.name: expected one of copy, repeat-copy, .*, got"):
        build_task({"name": name})


def test_task_is_built_with_its_options_and_defaults():
    assert build_task({"name": "copy", "bits": 3}) == Copy(bits=3, length=(1, 20))
    assert task_values(Copy(bits=3)) == {"name": "copy", "bits": 3, "length": [1, 20], "flags": "start-and-end"}
