"""Every task can be learned: a small model falls clearly below guessing within a second or two."""

import pytest

from tests.training import tiny
from training.preset import preset_from_values
from training.tasks import TASKS, build_task
from training.trainer import Trainer

pytestmark = pytest.mark.slow

UPDATES = 200

OPTIONS = {
    "copy": {"bits": 2, "length": [1, 2]},
    "repeat-copy": {"bits": 2, "length": 1, "repeats": [1, 2]},
    "associative-recall": {"bits": 2, "item_length": 1, "items": [2, 3]},
    "copy-recall": {"bits": 2, "length": [1, 2], "item_length": 1, "items": [2, 3]},
    "ngrams": {"order": 2, "length": 50},
    "priority-sort": {"bits": 2, "items": 2, "share": 0.5},
    "key-value": {"bits": 1, "pairs": [1, 2], "overwrites": [0, 1]},
    "dyck": {"kinds": 2, "length": [1, 2]},
    "graph-traversal": {"label_digits": 1, "nodes": [2, 3], "neighbours": 1, "moves": 1},
    "shortest-path": {"label_digits": 1, "nodes": 3, "neighbours": 1, "moves": [1, 2], "planning": 1},
    "family-tree": {"label_digits": 2, "people": 6, "generations": 3, "steps": 2, "queries": 1, "planning": 1},
    "babi": {"tasks": [1]},
}
"""The options of each task, small enough."""

STORIES = """\
1 Mary moved to the bathroom.
2 John went to the hallway.
3 Where is Mary? \tbathroom\t1
4 Mary went back to the garden.
5 Where is Mary? \tgarden\t4
1 John travelled to the garden.
2 Where is John? \tgarden\t1
1 Mary went to the hallway.
2 John moved to the bathroom.
3 Where is John? \tbathroom\t2
"""


def options_of(task, directory):
    """Return the options of a task; its data, if it needs any, are written into the directory."""
    if task != "babi":
        return OPTIONS[task]
    for split in ("train", "test"):
        (directory / f"qa1_where_{split}.txt").write_text(STORIES)
    return OPTIONS[task] | {"directory": str(directory)}


@pytest.mark.parametrize(("model", "mixed_lengths"), [("dnc", True), ("rnn", False)])
@pytest.mark.parametrize("task", TASKS)
def test_loss_falls_clearly_below_that_of_guessing(tmp_path, task, model, mixed_lengths):
    settings = {"updates": UPDATES, "batch_size": 16, "validate_every": UPDATES, "mixed_lengths": mixed_lengths}
    values = tiny.values(model, final_rate=0.3, **settings)
    values["task"] = {"name": task, **options_of(task, tmp_path)}
    values["model"] |= {"controller": {"kind": "lstm", "hidden_size": 32}}
    if "embedding" in build_task(values["task"]).model_values:
        values["model"]["embedding"] = {"size": 4}
    losses = []
    Trainer(preset_from_values(values)).run(lambda update: losses.append(update.loss) or True)
    assert sum(losses[-20:]) / 20 < 0.75 * losses[0]


def test_no_task_is_missing_from_this_list():
    assert set(OPTIONS) == set(TASKS)
