"""The tasks, by name."""

from collections.abc import Mapping
from typing import Any

from models.config import ConfigError, from_values
from training.tasks.base import Episode, Task
from training.tasks.copy import Copy

TASKS: dict[str, type[Task]] = {"copy": Copy}

__all__ = ["TASKS", "Copy", "Episode", "Task", "build_task"]


def build_task(values: Mapping[str, Any]) -> Task:
    """Return the task from plain values: its `name` and its options. Raises ConfigError."""
    options = dict(values)
    name = options.pop("name", None)
    if not isinstance(name, str) or name not in TASKS:
        raise ConfigError(f"task.name: expected one of {', '.join(TASKS)}, got {name!r}")
    return from_values(TASKS[name], options, "task")
