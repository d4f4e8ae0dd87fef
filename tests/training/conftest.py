"""One thread, one seed and the same tasks and models for every test of training."""

import functools
import sys
from collections.abc import Iterator

import pytest

from models.registry import MODELS
from tests.determinism import one_thread, seed
from training.tasks import TASKS

__all__ = ["one_thread", "seed"]


@pytest.fixture(scope="module")
def operators_parsed_once() -> Iterator[None]:
    """Keep the operators of torch's exporter, which parses them all anew at every export, a tenth of its time."""
    from torch.onnx._internal.exporter import _registration

    apis = _registration.onnxscript_apis
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(apis, "get_torchlib_ops", functools.cache(apis.get_torchlib_ops))
        yield


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
