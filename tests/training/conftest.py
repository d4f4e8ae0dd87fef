"""One thread, one seed and the same tasks and models for every test of training."""

import sys
from collections.abc import Iterator

import pytest

from models.registry import MODELS
from tests.determinism import one_thread, seed
from tests.exports import parse_operators_once
from training.tasks import TASKS

__all__ = ["one_thread", "seed"]


@pytest.fixture(scope="session")
def operators_parsed_once() -> None:
    parse_operators_once()


@pytest.fixture(autouse=True)
def registered_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore the registered tasks and models and the import path after each test."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before, modules = [(table, dict(table)) for table in (TASKS, MODELS)], set(sys.modules)
    yield
    for table, entries in before:
        table.clear()
        table.update(entries)
    for name in set(sys.modules) - modules:
        if "/" in name:
            del sys.modules[name]
