"""Copy and associative recall in one sequence, by hand."""

import pytest
import torch

from models.config import ConfigError
from tests.training.tasks.situations import generator
from training.tasks import CopyRecall, build_task

FIRST_FLAGS = slice(2, 4)
SECOND_FLAGS = slice(4, 6)


def test_episode_is_a_copy_and_behind_it_a_recall():
    inputs, targets, mask, _ = CopyRecall(bits=1, length=(1, 1), item_length=1, items=(2, 2)).sample(generator(), 1)

    a, x, y = (inputs[step, 0, 0].item() for step in (1, 5, 7))
    start, end, item, query, silence = *torch.eye(5)[1:].tolist(), [0] * 5
    copied = [start, [a, 0, 0, 0, 0], end, silence]
    recalled = [item, [x, 0, 0, 0, 0], item, [y, 0, 0, 0, 0], query, [x, 0, 0, 0, 0], query, silence]
    assert inputs[:, 0].tolist() == copied + recalled
    assert targets[:, 0, 0].tolist() == [0, 0, 0, a] + [0] * 7 + [y]
    assert mask[:, 0].tolist() == [0, 0, 0, 1] + [0] * 7 + [1]


def test_parts_are_the_sequences_that_their_tasks_draw():
    task, draws = CopyRecall(bits=2, length=(1, 4), item_length=2, items=(2, 5)), generator(3)
    parts = [part.sample(draws, 5) for part in task.parts()]
    whole = task.sample(generator(3), 5)
    end = len(parts[0].mask)
    assert whole.targets.equal(torch.cat([part.targets for part in parts]))
    assert whole.mask.equal(torch.cat([part.mask for part in parts]))
    assert whole.inputs[:end, :, :4].equal(parts[0].inputs)
    assert not whole.inputs[:end, :, SECOND_FLAGS].any()
    assert not whole.inputs[end:, :, FIRST_FLAGS].any()
    assert whole.inputs[end:, :, [0, 1, 4, 5]].equal(parts[1].inputs)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"bits": 0}, "Copy.bits must be at least 1, got 0"),
        ({"length": [3, 2]}, "Copy.length must be [least, greatest] with 1 <= least <= greatest, got [3, 2]"),
        (
            {"items": [1, 4]},
            "AssociativeRecall.items must be [least, greatest] with 2 <= least <= greatest, got [1, 4]",
        ),
    ],
)
def test_bad_option_is_refused_by_its_part(options, complaint):
    with pytest.raises(ConfigError) as caught:
        build_task({"name": "copy-recall", **options})
    assert str(caught.value) == complaint
