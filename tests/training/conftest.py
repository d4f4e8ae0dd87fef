"""One thread, one seed and the same tasks for every test of training."""

import sys
from collections.abc import Iterator

import pytest

from tests.determinism import one_thread, seed
from training.tasks import TASKS

__all__ = ["one_thread", "seed"]


@pytest.fixture(autouse=True)
def tasks_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore the registered tasks and the import path after each test."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before, modules = dict(TASKS), set(sys.modules)
    yield
    TASKS.clear()
    TASKS.update(before)
    for name in set(sys.modules) - modules:
        if "/" in name:
            del sys.modules[name]
