"""Checkpoints loaded as models."""

from pathlib import Path
from typing import Any

from app import loading
from app.budget import budgets_of
from app.engine.worker import NoJournal
from app.metrics import Metrics
from app.settings import Settings


def test_model_without_memory_is_left_out_at_the_start(few, monkeypatch):
    load_backend = loading._load_backend

    def load(directory: Path, *more: Any) -> Any:
        if directory.name == "dnc-copy":
            raise MemoryError("no room for its weights")
        return load_backend(directory, *more)

    monkeypatch.setattr(loading, "_load_backend", load)
    settings = Settings(checkpoints=few)
    models = loading.load_models(settings, Metrics(), NoJournal(), budgets_of(settings))
    assert models.failures == {"dnc-copy": "no room for its weights"}
    assert [model.name for model in models] == ["lstm-copy", "ntm-copy"]
