"""The copy task: layout, lengths, errors, loss and picture by hand."""

import math

import pytest
import torch
from torch.testing import assert_close

from models.config import ConfigError
from training.tasks import Copy, Episode, build_task

TASK = Copy(bits=3, min_length=2, max_length=4)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def answer(episode, certainty=0.01):
    """Return the logits of a model that is right, as certain as that, and says 1 where nothing is asked for."""
    right = (2 * episode.targets - 1) * certainty
    return torch.where(episode.mask.unsqueeze(2) > 0, right, 7.0)


def test_episode_of_two_vectors_is_laid_out_between_the_flags():
    inputs, targets, mask = Copy(bits=2).sample(generator(), 1, length=2)

    (a, b), (c, d) = inputs[1:3, 0, :2].tolist()
    start, end, silence = [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]
    assert inputs[:, 0].tolist() == [start, [a, b, 0, 0], [c, d, 0, 0], end, silence, silence]
    assert targets[:, 0].tolist() == [[0, 0], [0, 0], [0, 0], [0, 0], [a, b], [c, d]]
    assert mask[:, 0].tolist() == [0, 0, 0, 0, 1, 1]


def test_episode_has_the_sizes_that_the_task_says():
    inputs, targets, mask = TASK.sample(generator(), 5, length=7)
    assert inputs.shape == (16, 5, TASK.input_size) == (16, 5, 5)
    assert targets.shape == (16, 5, TASK.output_size) == (16, 5, 3)
    assert mask.shape == (16, 5)


def test_vectors_are_fair_bits_different_in_every_row():
    vectors = Copy(bits=8).sample(generator(), 50, length=20).inputs[1:21, :, :8]
    assert set(vectors.unique().tolist()) == {0, 1}
    assert abs(vectors.mean().item() - 0.5) < 0.02
    rows = {tuple(row.flatten().tolist()) for row in vectors.unbind(1)}
    assert len(rows) == 50


def test_lengths_drawn_cover_the_range_and_nothing_else():
    draw = generator()
    lengths = [(len(TASK.sample(draw, 1).inputs) - 2) // 2 for _ in range(300)]
    assert set(lengths) == {2, 3, 4}
    assert all(lengths.count(length) > 60 for length in (2, 3, 4))


def test_range_of_one_length_always_draws_it():
    draw = generator()
    assert {len(Copy(min_length=3, max_length=3).sample(draw, 1).inputs) for _ in range(20)} == {8}


def test_longest_is_the_end_of_the_range():
    assert TASK.longest == 4


def test_same_seed_draws_the_same_episode_and_another_seed_another():
    for first, second in zip(TASK.sample(generator(3), 4), TASK.sample(generator(3), 4), strict=True):
        assert torch.equal(first, second)
    assert not torch.equal(TASK.sample(generator(3), 4, 4).inputs, TASK.sample(generator(4), 4, 4).inputs)


def test_second_episode_of_a_generator_differs_from_the_first():
    draw = generator()
    assert not torch.equal(TASK.sample(draw, 4, 4).inputs, TASK.sample(draw, 4, 4).inputs)


def test_errors_of_a_right_answer_are_none_whatever_is_said_elsewhere():
    episode = TASK.sample(generator(), 6, length=4)
    assert TASK.errors(answer(episode), episode).tolist() == [0] * 6


def test_errors_count_exactly_the_flipped_bits_of_each_row():
    episode = TASK.sample(generator(), 3, length=4)
    outputs = answer(episode)
    for step, row, bit in [(6, 0, 0), (6, 2, 0), (8, 2, 1), (9, 2, 2)]:
        outputs[step, row, bit] *= -1
    assert TASK.errors(outputs, episode).tolist() == [1, 0, 3]


def test_errors_of_the_opposite_are_every_bit_asked_for():
    episode = TASK.sample(generator(), 2, length=4)
    assert TASK.errors(-answer(episode), episode).tolist() == [12, 12]


def test_logit_of_zero_counts_as_a_zero():
    episode = TASK.sample(generator(), 4, length=3)
    ones = episode.targets.sum((0, 2))
    assert TASK.errors(torch.zeros_like(episode.targets), episode).tolist() == ones.tolist()


def test_loss_of_a_certain_right_answer_is_zero():
    episode = TASK.sample(generator(), 4, length=3)
    assert TASK.loss(answer(episode, certainty=20.0), episode).item() < 1e-8


def test_loss_at_chance_is_the_logarithm_of_two_whatever_the_length():
    for length in (1, 2, 9):
        episode = TASK.sample(generator(), 4, length=length)
        assert_close(TASK.loss(torch.zeros_like(episode.targets), episode).item(), math.log(2))


def test_loss_by_hand_is_the_mean_over_the_bits_asked_for():
    episode = Episode(
        torch.zeros(3, 1, 4), torch.tensor([[[0.0, 0]], [[1, 0]], [[0, 1]]]), torch.tensor([[0], [1], [1]])
    )
    outputs = torch.tensor([[[9.0, -9]], [[2, 1]], [[-3, 0]]])
    by_hand = [math.log1p(math.exp(-2)), math.log1p(math.exp(1)), math.log1p(math.exp(-3)), math.log(2)]
    assert_close(Copy(bits=2).loss(outputs, episode).item(), sum(by_hand) / 4)


def test_loss_has_no_gradient_where_nothing_is_asked_for():
    episode = TASK.sample(generator(), 2, length=3)
    outputs = torch.randn(8, 2, 3, requires_grad=True)
    TASK.loss(outputs, episode).backward()
    assert outputs.grad[:5].eq(0).all()
    assert outputs.grad[5:].ne(0).all()


def test_render_draws_time_to_the_right_and_blanks_where_nothing_is_asked_for():
    task = Copy(bits=2)
    episode = task.sample(generator(), 2, length=2)
    episode.inputs[1:3, 1, :2] = torch.tensor([[1.0, 0], [1, 1]])
    episode.targets[4:, 1] = torch.tensor([[1.0, 0], [1, 1]])
    picture = [".##...", "..#...", "#.....", "...#..", "------", "    ##", "    .#"]
    assert task.render(episode, row=1).splitlines() == picture


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"bits": 0}, "Copy.bits must be at least 1, got 0"),
        ({"min_length": 0}, "Copy.min_length must be at least 1, got 0"),
        ({"min_length": 5, "max_length": 4}, "Copy.max_length must be at least min_length 5, got 4"),
        ({"bits": "8"}, "task.bits: expected int, got '8'"),
        ({"length": 3}, "task: unknown key 'length'; known keys are bits, min_length, max_length"),
    ],
)
def test_bad_option_is_named(options, complaint):
    with pytest.raises(ConfigError) as caught:
        build_task({"name": "copy", **options})
    assert str(caught.value) == complaint


@pytest.mark.parametrize("name", ["sort", None, ["copy"]])
def test_unknown_task_is_told_which_there_are(name):
    with pytest.raises(ConfigError, match=r"task\.name: expected one of copy, got"):
        build_task({"name": name})


def test_task_is_built_with_its_options_and_defaults():
    assert build_task({"name": "copy", "bits": 3}) == Copy(bits=3, min_length=1, max_length=20)
