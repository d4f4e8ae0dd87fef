"""The laws of all tasks, each one test over the table of tasks."""

import json
import re

import pytest
import torch
from torch.testing import assert_close

from tests.training.tasks.situations import generator, right, task_named
from training.tasks import TASKS, AnswerTask, BitTask, build_task, join, task_values

ANSWER_TASKS = [name for name, task in TASKS.items() if issubclass(task, AnswerTask)]


@pytest.fixture(params=TASKS)
def task(request, tmp_path):
    return task_named(request.param, tmp_path)


def mixed(task, seed=0):
    """Return an episode of sequences that draw their own sizes, as one and one by one."""
    draw = generator(seed)
    parts = [task.sample(draw, 1) for _ in range(6)]
    return join(parts), parts


def random_outputs(episode):
    return torch.randn(episode.targets.shape, generator=generator(9))


# The table


def test_table_knows_tasks_by_their_names():
    assert all(task.name == name for name, task in TASKS.items())
    assert all(issubclass(task, BitTask | AnswerTask) for task in TASKS.values())


@pytest.mark.parametrize("name", TASKS)
def test_description_has_a_picture_and_a_source(name):
    lines = [line.split()[0] for line in TASKS[name].__doc__.splitlines() if line.strip()]
    assert {"time", "target"} <= set(lines)
    assert re.search(r"arXiv \d{4}\.\d{5}|arXiv \d{4}\.\d{4}|Nature|github\.com/", TASKS[name].paper)


# Episodes


def test_episode_has_the_shapes_of_the_model(task):
    values = task.model_values
    inputs, targets, mask, lengths = task.sample(generator(), 5)
    assert inputs.shape == (len(mask), 5, values["input_size"])
    assert targets.shape == (len(mask), 5, values["output_size"])
    assert mask.shape == (len(mask), 5)
    assert lengths is None or (lengths.shape == (5,) and lengths.max() == len(mask))
    assert {inputs.dtype, targets.dtype, mask.dtype} == {torch.float32}
    tokens = set(inputs.unique().tolist()) if "embedding" in values else set()
    assert tokens <= set(range(values.get("embedding", {}).get("vocabulary_size", 0)))


def test_episode_targets_and_mask_are_zeros_and_ones(task):
    episode, _ = mixed(task)
    assert set(episode.mask.unique().tolist()) == {0, 1}
    assert set(episode.targets.unique().tolist()) == {0, 1}


def test_episode_asks_every_sequence_for_something(task):
    assert (task.asked(task.sample(generator(), 20)) > 0).all()


def test_episode_is_zero_where_a_sequence_is_over(task):
    episode, _ = mixed(task)
    over = torch.arange(len(episode.mask))[:, None] >= episode.lengths
    for tensor in (episode.inputs, episode.targets, episode.mask.unsqueeze(2)):
        assert not tensor[over].any()


def test_loss_and_gradients_of_an_episode_without_answers_are_0(task):
    episode, _ = mixed(task)
    outputs = random_outputs(episode).requires_grad_()
    silent = episode._replace(mask=torch.zeros_like(episode.mask))
    loss = task.loss(outputs, silent)
    loss.backward()
    assert loss.item() == 0
    assert not outputs.grad.any()
    assert not task.asked(silent).any()


@pytest.mark.parametrize("task", ANSWER_TASKS, indirect=True)
def test_episode_of_answers_has_one_class_in_every_group(task):
    episode = task.sample(generator(), 20)
    chosen = episode.targets.unflatten(2, (task.groups, task.classes)).sum(3)
    assert (chosen[episode.mask > 0] == 1).all()


def test_same_seed_draws_the_same_bits_and_another_seed_others(task):
    first, again, other = (mixed(task, seed)[0] for seed in (3, 3, 4))
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert first.inputs.shape != other.inputs.shape or not torch.equal(first.inputs, other.inputs)


def test_sampling_leaves_the_random_numbers_of_torch_alone(task):
    before = torch.get_rng_state()
    task.sample(generator(), 3)
    assert torch.equal(torch.get_rng_state(), before)


# Measures


def test_right_answers_have_no_errors_and_no_loss(task):
    episode, _ = mixed(task)
    outputs = right(episode, certainty=50.0)
    assert task.errors(outputs, episode).float().max() < 1e-6
    assert task.loss(outputs, episode) < 1e-6


@pytest.mark.parametrize("task", [name for name in TASKS if name != "ngrams"], indirect=True)
def test_opposite_answers_are_all_wrong(task):
    episode, _ = mixed(task)
    assert task.errors(-right(episode), episode).tolist() == task.asked(episode).tolist()


def test_outputs_where_nothing_is_asked_for_do_not_count(task):
    episode, _ = mixed(task)
    outputs = random_outputs(episode)
    noise = outputs + 5 * torch.randn_like(outputs) * (1 - episode.mask).unsqueeze(2)
    assert_close(task.errors(noise, episode), task.errors(outputs, episode))
    assert_close(task.loss(noise, episode), task.loss(outputs, episode))


def test_sequences_of_mixed_lengths_are_measured_as_each_alone(task):
    episode, parts = mixed(task)
    outputs = random_outputs(episode)
    alone = [outputs[: len(part.mask), row : row + 1] for row, part in enumerate(parts)]
    errors = torch.cat([task.errors(output, part) for output, part in zip(alone, parts, strict=True)])
    assert_close(task.errors(outputs, episode), errors)
    assert_close(task.asked(episode), torch.cat([task.asked(part) for part in parts]))
    if task.optimum(episode) is not None:
        assert_close(task.optimum(episode), torch.cat([task.optimum(part) for part in parts]))


def test_sequence_padded_is_rendered_as_it_is_alone(task):
    episode, parts = mixed(task)
    pictures = [task.render(part) for part in parts]
    assert [task.render(episode, row) for row in range(6)] == pictures
    assert all(pictures)


# Options


def test_options_come_back_from_json(task):
    assert build_task(json.loads(json.dumps(task_values(task)))) == task


def test_greatest_has_no_range_left_and_the_same_model(task):
    greatest = task.greatest
    assert greatest.sizes == {name: (greatest, greatest) for name, (_, greatest) in task.sizes.items()}
    assert greatest.model_values == task.model_values
