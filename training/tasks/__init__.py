"""The tasks, by name."""

from collections.abc import Mapping
from typing import Any

from models.config import ConfigError, from_values
from training.tasks.associative_recall import AssociativeRecall
from training.tasks.babi import Babi
from training.tasks.base import AnswerTask, BitTask, Episode, Range, Task, join
from training.tasks.copy import Copy
from training.tasks.dyck import DyckWords
from training.tasks.family_tree import FamilyTree
from training.tasks.graphs import GraphTraversal, ShortestPath
from training.tasks.key_value import KeyValueRecall
from training.tasks.ngrams import NGrams
from training.tasks.priority_sort import PrioritySort
from training.tasks.repeat_copy import RepeatCopy

TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (
        Copy,
        RepeatCopy,
        AssociativeRecall,
        NGrams,
        PrioritySort,
        KeyValueRecall,
        DyckWords,
        GraphTraversal,
        ShortestPath,
        FamilyTree,
        Babi,
    )
}

NO_TASK = "none"
"""What stands for the name of a task in the manifest of a model that was imported without one."""

__all__ = [
    "NO_TASK",
    "TASKS",
    "AnswerTask",
    "AssociativeRecall",
    "Babi",
    "BitTask",
    "Copy",
    "DyckWords",
    "Episode",
    "FamilyTree",
    "GraphTraversal",
    "KeyValueRecall",
    "NGrams",
    "PrioritySort",
    "Range",
    "RepeatCopy",
    "ShortestPath",
    "Task",
    "build_task",
    "join",
    "task_values",
]


def build_task(values: Mapping[str, Any]) -> Task:
    """Return the task from plain values: its `name` and its options. Raises ConfigError."""
    options = dict(values)
    name = options.pop("name", None)
    if name == NO_TASK:
        raise ConfigError(
            "task.name: the model was imported without a task; engram import --task name=TASK gives it one"
        )
    if not isinstance(name, str) or name not in TASKS:
        raise ConfigError(f"task.name: expected one of {', '.join(TASKS)}, got {name!r}")
    return from_values(TASKS[name], options, "task")


def task_values(task: Task) -> dict[str, Any]:
    """Return a task as plain values: its name and its options. The inverse of `build_task`."""
    return {"name": task.name, **task.options}
