"""The copy task by hand."""

import pytest

from models.config import ConfigError
from tests.training.tasks.situations import generator
from training.tasks import Copy, build_task


def test_episode_of_two_vectors_is_laid_out_between_the_flags():
    inputs, targets, mask, _ = Copy(bits=2, length=(2, 2)).sample(generator(), 1)

    (a, b), (c, d) = inputs[1:3, 0, :2].tolist()
    start, end, silence = [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]
    assert inputs[:, 0].tolist() == [start, [a, b, 0, 0], [c, d, 0, 0], end, silence, silence]
    assert targets[:, 0].tolist() == [[0, 0], [0, 0], [0, 0], [0, 0], [a, b], [c, d]]
    assert mask[:, 0].tolist() == [0, 0, 0, 0, 1, 1]


def test_episode_with_end_flag_alone_asks_at_every_step():
    inputs, targets, mask, _ = Copy(bits=2, length=(2, 2), flags="end").sample(generator(), 1)

    (a, b), (c, d) = inputs[:2, 0, :2].tolist()
    end, silence = [0, 0, 1], [0, 0, 0]
    assert inputs[:, 0].tolist() == [[a, b, 0], [c, d, 0], end, silence, silence, silence]
    assert targets[:, 0].tolist() == [silence, silence, silence, [a, b, 0], [c, d, 0], [0, 0, 1]]
    assert mask[:, 0].tolist() == [1] * 6


def test_episode_of_seven_vectors_has_sixteen_steps():
    inputs, targets, mask, _ = Copy(bits=3, length=(7, 7)).sample(generator(), 5)
    assert (inputs.shape, targets.shape, mask.shape) == ((16, 5, 5), (16, 5, 3), (16, 5))


def test_vectors_are_fair_bits_different_in_every_row():
    vectors = Copy(length=(20, 20)).sample(generator(), 50).inputs[1:21, :, :8]
    assert set(vectors.unique().tolist()) == {0, 1}
    assert abs(vectors.mean().item() - 0.5) < 0.02
    assert len({tuple(row.flatten().tolist()) for row in vectors.unbind(1)}) == 50


def test_lengths_drawn_cover_the_range_and_nothing_else():
    task, draw = Copy(bits=3, length=(2, 4)), generator()
    lengths = [(len(task.sample(draw, 1).inputs) - 2) // 2 for _ in range(300)]
    assert set(lengths) == {2, 3, 4}
    assert all(lengths.count(length) > 60 for length in (2, 3, 4))


def test_range_of_one_length_always_draws_it():
    task, draw = Copy(length=(3, 3)), generator()
    assert {len(task.sample(draw, 1).inputs) for _ in range(20)} == {8}


def test_second_episode_of_a_generator_differs_from_the_first():
    task, draw = Copy(length=(4, 4)), generator()
    assert task.sample(draw, 4).inputs.tolist() != task.sample(draw, 4).inputs.tolist()


def test_picture_shows_vectors_flags_and_targets():
    task = Copy(bits=1, length=(2, 2))
    first, second = (".#"[int(bit)] for bit in task.sample(generator(5), 1).targets[4:, 0, 0])
    picture = [f".{first}{second}...", "#.....", "...#..", "------", f"    {first}{second}"]
    assert task.render(task.sample(generator(5), 1)).splitlines() == picture


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"bits": 0}, "Copy.bits must be at least 1, got 0"),
        ({"bits": "8"}, "task.bits: expected int, got '8'"),
        ({"min_length": 3}, "task: unknown key 'min_length'; known keys are bits, length, flags"),
    ],
)
def test_bad_option_is_named(options, complaint):
    with pytest.raises(ConfigError) as caught:
        build_task({"name": "copy", **options})
    assert str(caught.value) == complaint
