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


def test_states_have_half_of_the_free_memory_of_a_gpu(monkeypatch):
    monkeypatch.setattr(loading, "_has_cuda_driver", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (60 * 2**30, 80 * 2**30))
    on_gpu, on_cpu = loading.server_budgets(Settings()), loading.server_budgets(Settings(device="cpu"))
    assert on_gpu.states.limit == 30 * 2**30
    assert on_cpu.states.limit == budgets_of(Settings()).states.limit
    assert on_gpu.queue.limit == on_cpu.queue.limit
    assert loading.server_budgets(Settings(max_memory_bytes=5)).states.limit == 5
