"""The tasks, by name."""

import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

from models.config import ConfigError, from_values
from training.tasks.associative_recall import AssociativeRecall
from training.tasks.babi import Babi
from training.tasks.base import AnswerTask, BitTask, Episode, Range, Task, join
from training.tasks.copy import Copy
from training.tasks.copy_recall import CopyRecall
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
        CopyRecall,
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
"""The name of the task in the manifest of a model that was imported without one."""

__all__ = [
    "NO_TASK",
    "TASKS",
    "AnswerTask",
    "AssociativeRecall",
    "Babi",
    "BitTask",
    "Copy",
    "CopyRecall",
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
    "register",
    "task_values",
]

T = TypeVar("T", bound=type[Task])


def register(task: T) -> T:
    """Register a task class, so that presets and checkpoints can name it; a decorator above that of the dataclass.

    The same class, registered again, replaces itself. Raises ConfigError if the name is taken, or the class cannot be a
    task.
    """
    if not issubclass(task, Task):
        raise ConfigError(f"{task.__name__} is no task: derive it from BitTask or AnswerTask")
    name = getattr(task, "name", None)
    if not isinstance(name, str) or name in ("", NO_TASK):
        raise ConfigError(f"{task.__name__}.name: expected the name of a task, such as 'parity', got {name!r}")
    if inspect.isabstract(task):
        raise ConfigError(f"task {name!r}: {task.__name__} must define {', '.join(sorted(task.__abstractmethods__))}")
    if "__dataclass_fields__" not in vars(task):
        raise ConfigError(
            f"task {name!r}: {task.__name__} is no dataclass: put @dataclass(frozen=True) below @register"
        )
    known = TASKS.get(name, task)
    if (known.__module__, known.__qualname__) != (task.__module__, task.__qualname__):
        raise ConfigError(
            f"task {name!r}: that is the name of {known.__qualname__} already; give {task.__name__} another"
        )
    TASKS[name] = task
    return task


def build_task(values: Mapping[str, Any]) -> Task:
    """Return the task from plain values: its `name` and its options. Raises ConfigError."""
    options = dict(values)
    name = options.pop("name", None)
    if name == NO_TASK:
        raise ConfigError("task.name: the model was imported without a task; engram import --task name=TASK sets one")
    if not isinstance(name, str) or name not in TASKS:
        raise ConfigError(
            f"task.name: expected one of {', '.join(TASKS)}, got {name!r}; --tasks FILE names the Python file of others"
        )
    return from_values(TASKS[name], options, "task")


def task_values(task: Task) -> dict[str, Any]:
    """Return a task as plain values: its name and its options. The inverse of `build_task`."""
    return {"name": task.name, **task.options}
