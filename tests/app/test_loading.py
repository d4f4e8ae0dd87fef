"""Checkpoints loaded as models."""

import asyncio
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from app import loading
from app.budget import budgets_of
from app.engine.worker import NoJournal
from app.metrics import Metrics
from app.settings import Settings
from app.stores.memory import MemoryStore
from app.stores.postgres import PostgresKeyStore, PostgresStore
from app.stores.sqlite import SqliteKeyStore, SqliteStore
from models.manifest import read_manifest


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


@pytest.mark.parametrize(
    ("store", "kind", "keys"),
    [
        ("sqlite", SqliteStore, SqliteKeyStore),
        ("memory", MemoryStore, SqliteKeyStore),
        (None, PostgresStore, PostgresKeyStore),
    ],
)
def test_setting_store_chooses_the_stores(store, kind, keys, data, database_url):
    settings = Settings(store=store or database_url, data=data)
    store, ownership = loading.open_store(settings, Metrics())
    with closing(store) as opened, closing(loading.open_keys(settings)) as of_keys:
        assert ownership.is_shared == (kind is PostgresStore)
        asyncio.run(ownership.close())
        assert (type(opened), type(of_keys)) == (kind, keys)
        assert (opened.counts(), list(of_keys.list())) == ({}, [])


def test_command_for_keys_names_the_store_without_its_password(data):
    assert loading.keys_command(Settings(data=data)) == f"engram keys create --data {data}"
    url = "postgresql://me:secret@h/engram"
    assert loading.keys_command(Settings(store=url)) == "engram keys create --store postgresql://me@h/engram"


def test_states_have_a_quarter_of_the_smaller_memory(monkeypatch):
    monkeypatch.setattr(loading, "_has_cuda_driver", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    on_cpu = loading.server_budgets(Settings(device="cpu"))
    for free, limit in ((2**30, 2**28), (2**50, on_cpu.states.limit)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda free=free: (free, 2**50))
        on_gpu = loading.server_budgets(Settings())
        assert (on_gpu.states.limit, on_gpu.queue.limit) == (limit, on_cpu.queue.limit)
    assert loading.server_budgets(Settings(max_memory_bytes=5)).states.limit == 5


def test_model_whose_gpu_kernels_fail_is_left_to_torch(few, monkeypatch, caplog):
    load_backend, asked = loading._load_backend, []

    def load(directory: Path, manifest: Any, settings: Settings, device: str) -> Any:
        asked.append(settings.backend)
        backend = load_backend(directory, manifest, Settings(device="cpu", backend="torch"), "cpu")
        if settings.backend == "auto":
            backend.kind, backend.device = "fused", "cuda"
            monkeypatch.setattr(backend, "step", lambda *_: 1 / 0)
        return backend

    monkeypatch.setattr(loading, "_load_backend", load)
    directory = few / "dnc-copy"
    backend = loading._checked_backend(directory, read_manifest(directory), Settings(), "cuda")
    assert (asked, backend.kind) == (["auto", "torch"], "torch")
    assert "its steps are computed by torch: it cannot take a step: ZeroDivisionError" in caplog.text
