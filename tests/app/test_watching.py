"""Measurements that a server takes of itself, and those that no client can add to."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.sync.client import connect

from app.metrics import Metrics
from app.watching import LAG_SECONDS, DataWatch, file_sizes, watch_loop
from tests.app.asynchronous import run
from tests.app.harness import Server, running_server

ODD_METHODS = ("PROPFIND", "MKCOL", "M-SEARCH", "SUBSCRIBE", "PURGE")


def value(metrics: Metrics, name: str, **labels: str) -> float:
    found = metrics.registry.get_sample_value(name, labels)
    assert found is not None
    return found


def samples(server: Server) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return the samples that a server exposes, by name and labels, without the times of creation."""
    text = httpx.get(f"{server.url}/metrics").text
    found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(one.name, frozenset(one.labels.items())): one.value for one in found if not one.name.endswith("_created")}


def refusals(server: Server, code: str) -> float:
    return samples(server).get(("engram_refusals_total", frozenset({("code", code)})), 0)


def test_lag_of_a_loop_that_is_held_is_measured():
    metrics = Metrics()

    async def test() -> None:
        task = asyncio.create_task(watch_loop(metrics))
        await asyncio.sleep(0)
        time.sleep(LAG_SECONDS + 0.3)  # noqa: ASYNC251
        await asyncio.sleep(0.05)
        task.cancel()

    run(test())
    assert value(metrics, "engram_event_loop_lag_seconds_count") == 1
    assert value(metrics, "engram_event_loop_lag_seconds_sum") >= 0.25


def test_data_directory_is_measured_with_its_log(tmp_path):
    metrics = Metrics()
    (tmp_path / "more").mkdir()
    for name, size in (("a.sqlite", 100), ("a.sqlite-wal", 20), ("more/b", 3)):
        (tmp_path / name).write_bytes(b"x" * size)
    watch = DataWatch(metrics, tmp_path)
    watch.start()
    watch.end()
    watch._thread.join(10)
    assert (value(metrics, "engram_data_bytes"), value(metrics, "engram_wal_bytes")) == (123, 20)
    assert value(metrics, "engram_data_free_bytes") > 0


def test_missing_directory_has_no_files(tmp_path):
    assert file_sizes(tmp_path / "none") == {}


def test_server_shows_its_build_and_its_process(server):
    found = samples(server)
    [labels] = [dict(labels) for name, labels in found if name == "engram_build_info"]
    assert labels.keys() == {"version", "python", "backends", "store"}
    assert ("fused" in labels["backends"].split(","), labels["store"]) == (True, "sqlite")
    assert found["process_resident_memory_bytes", frozenset()] > 1e6
    assert found["engram_data_bytes", frozenset()] > 0


JSON = {"Content-Type": "application/json"}


def ask_in_every_odd_way(url: str, socket_url: str, number: int) -> None:
    """Send requests whose paths, methods, models, sessions and fields are new for each number."""
    for method in ODD_METHODS:
        httpx.request(method, f"{url}/made-up-{number}")
    for path in (f"/x{number}/y", f"/models/{number}", f"/sessions/{number}", f"/static/{number}", f"/?q={number}"):
        httpx.get(f"{url}{path}", headers={"X-Request-ID": f"id-{number}", "Host": f"host{number}"})
    httpx.post(f"{url}/infer", json={"model": f"model{number}", "inputs": [[1]]})
    httpx.post(f"{url}/sessions", json={"model": f"model{number}"})
    httpx.post(f"{url}/sessions/{number}/steps", json={"inputs": [[1]], "trace": [f"t{number}"]})
    for path in (f"/stream?model={number}", f"/made-up-{number}", f"/sessions/{number}/stream"):
        with connect(f"{socket_url}{path}") as stream:
            assert json.loads(stream.recv())["type"] == "error"


@pytest.mark.slow
def test_clients_cannot_make_values_of_labels(data: Path, few: Path):
    with running_server(data=data, checkpoints=few) as server:
        ask_in_every_odd_way(server.url, server.socket_url, 1)
        before = set(samples(server)) | set(samples(server))  # the first has not counted itself
        for number in (2, 3):
            ask_in_every_odd_way(server.url, server.socket_url, number)
        assert set(samples(server)) == before
        methods = {dict(labels).get("method") for _, labels in before} - {None}
        assert methods <= {"GET", "POST", "other"}


@pytest.mark.parametrize(
    ("code", "ask"),
    [
        ("not_found", lambda url: httpx.get(f"{url}/none")),
        ("method_not_allowed", lambda url: httpx.put(f"{url}/models")),
        ("malformed_body", lambda url: httpx.post(f"{url}/infer", content=b"{", headers=JSON)),
        ("model_not_found", lambda url: httpx.get(f"{url}/models/none")),
        ("body_too_large", lambda url: httpx.post(f"{url}/infer", content=b" " * 300_000, headers=JSON)),
        ("upgrade_required", lambda url: httpx.get(f"{url}/streams")),
        ("session_not_found", lambda url: httpx.post(f"{url}/sessions/none/steps", json={"inputs": [[1]]})),
    ],
)
def test_refused_request_is_counted_once_by_its_code(server, code, ask):
    before = refusals(server, code)
    assert ask(server.url).json()["code"] == code
    assert refusals(server, code) == before + 1


def test_refusal_at_once_is_counted(server, client):
    session = client.post("/sessions", json={"model": "dnc-copy"}).json()["id"]
    step: dict[str, Any] = {"inputs": [[0.5] * 10]}
    client.post(f"/sessions/{session}/steps", json=step)
    before = refusals(server, "step_conflict")
    assert client.post(f"/sessions/{session}/steps", json=step | {"if_step": 9}).status_code == 409
    assert refusals(server, "step_conflict") == before + 1


@pytest.mark.parametrize(("path", "code"), [("/stream?model=none", "model_not_found"), ("/none", "not_found")])
def test_refused_websocket_is_counted_once(server, path, code):
    before = refusals(server, code)
    with connect(f"{server.socket_url}{path}") as stream:
        assert json.loads(stream.recv())["code"] == code
    assert refusals(server, code) == before + 1
