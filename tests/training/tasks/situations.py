"""Helpers of tests of tasks: seeds, outputs of right models, and stories."""

import torch

from training.tasks import build_task

STORIES = {
    "qa1_where_train.txt": """\
1 Ann went to the barn.
2 Bob ran to the lake.
3 Where is Ann? \tbarn\t1
4 Ann ran to the lake.
5 Where is Ann? \tlake\t4
1 Bob went to the barn.
2 Where is Bob? \tbarn\t1
""",
    "qa1_where_test.txt": """\
1 Bob ran to the pond.
2 Where is Bob? \tpond\t1
""",
    "qa8_lists_train.txt": """\
1 Ann took the hat.
2 Ann took the cup.
3 What is Ann carrying?\that,cup\t1 2
4 Bob ran to the lake.
5 What is Bob carrying?\tnothing\t
""",
    "qa8_lists_test.txt": """\
1 Bob took the cup.
2 What is Bob carrying?\tcup\t1
""",
}
"""bAbI files by name: words of Ann and Bob."""


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def right(episode, certainty=1.0):
    """Return the logits of a model that is always right."""
    return (2 * episode.targets - 1) * certainty


def write_stories(directory, stories=STORIES):
    """Write files of stories to a directory, and return it as an option of a task."""
    for name, text in stories.items():
        (directory / name).write_text(text)
    return str(directory)


def task_named(name, directory):
    """Return a task that draws sequences of different lengths; its files are written to `directory`."""
    options = {"ngrams": {"order": 3, "length": [8, 30]}, "priority-sort": {"items": [3, 9]}}
    if name == "babi":
        options[name] = {"directory": write_stories(directory), "tasks": [1, 8]}
    return build_task({"name": name, **options.get(name, {})})
