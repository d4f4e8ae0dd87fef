"""The checkpoints loaded again while a server runs: by the route, by SIGHUP, with sessions open all the while."""

import asyncio
import gc
import shutil
import signal
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from app import reloading
from app.main import create_app
from app.settings import Settings
from tests.app.checkpoints import copy_checkpoint, make_checkpoint
from tests.app.harness import Server, running_server
from tests.waiting import until

pytestmark = pytest.mark.slow

INPUTS = [[0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two checkpoints of one model, of other weights."""
    directory = tmp_path_factory.mktemp("versions")
    return make_checkpoint(directory / "1", "dnc", seed=1), make_checkpoint(directory / "2", "dnc", seed=2)


@pytest.fixture
def root(versions: tuple[Path, Path], tmp_path: Path) -> Path:
    """A directory of checkpoints with the models `a` and `b`."""
    for name in "ab":
        copy_checkpoint(versions[0], tmp_path / "checkpoints" / name)
    return tmp_path / "checkpoints"


@pytest.fixture
def server(root: Path, data: Path) -> Iterator[Server]:
    with running_server("--max-resident", "1", data=data, checkpoints=root) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


def replace(root: Path, name: str, version: Path) -> None:
    shutil.rmtree(root / name)
    copy_checkpoint(version, root / name)


def reload(client: httpx.Client) -> Any:
    answer = client.post("/admin/reload")
    assert answer.status_code == 200, answer.text
    return answer.json()


def opened(client: httpx.Client, model: str = "a", **more: object) -> str:
    answer = client.post("/sessions", json={"model": model, **more})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def stepped(client: httpx.Client, session: str, inputs: list[list[float]]) -> Any:
    answer = client.post(f"/sessions/{session}/steps", json={"inputs": inputs})
    assert answer.status_code == 200, answer.text
    return answer.json()["outputs"]


def inferred(client: httpx.Client, model: str = "a", **more: object) -> Any:
    return client.post("/infer", json={"model": model, "inputs": INPUTS, **more}).json()["outputs"]


def close_to(outputs: Any) -> Any:
    return [pytest.approx(row, abs=1e-6) for row in outputs]


def versions_of(client: httpx.Client, model: str) -> list[bool]:
    """Return of each version of a model that runs whether it is offered."""
    return [check["offered"] for check in client.get("/readyz", params={"model": model}).json()["checks"]]


def test_reload_names_what_it_added_changed_removed_and_left_out(client, root, versions):
    copy_checkpoint(versions[0], root / "c")
    copy_checkpoint(versions[0], root / "broken")
    (root / "broken" / "model.onnx").write_bytes(b"junk")
    replace(root, "a", versions[1])
    shutil.rmtree(root / "b")
    reloaded = reload(client)
    assert (reloaded["added"], reloaded["changed"], reloaded["removed"]) == (["c"], ["a"], ["b"])
    assert (reloaded["failed"].keys(), reloaded["models"]) == ({"broken"}, ["a", "c"])
    assert [model["name"] for model in client.get("/models").json()] == ["a", "c"]
    assert (client.get("/models/b").status_code, len(inferred(client, "c"))) == (404, 4)


def test_reload_shows_the_back_ends_of_the_models(root, data):
    app = create_app(Settings(checkpoints=root, data=data))

    async def shown() -> str:
        async with app.router.lifespan_context(app):
            object.__setattr__(app.state.models.get("b"), "backend", "another")
            await app.state.reloader.reload()
            exposition: bytes = app.state.metrics.exposition()
            return exposition.decode()

    assert 'backends="another,' in asyncio.run(shown())


def test_reload_of_the_same_checkpoints_changes_nothing(client):
    before = inferred(client)
    reloaded = reload(client)
    assert [reloaded[name] for name in ("added", "changed", "removed", "failed")] == [[], [], [], {}]
    assert (inferred(client), versions_of(client, "a")) == (before, [True])


def test_sessions_stay_on_the_version_they_began_with(client, root, versions):
    sizes = [None, None, 20]
    expected = [inferred(client, memory_size=size) for size in sizes]
    old = [opened(client, memory_size=size) for size in sizes]
    assert [stepped(client, session, INPUTS[:2]) for session in old] == [close_to(rows[:2]) for rows in expected]
    replace(root, "a", versions[1])
    assert reload(client)["changed"] == ["a"]
    for at in (2, 3):  # one is resident at a time: each is restored, by weights that are no longer there
        outputs = [stepped(client, session, INPUTS[at : at + 1]) for session in old]
        assert outputs == [close_to(rows[at : at + 1]) for rows in expected]
    assert stepped(client, opened(client), INPUTS) == close_to(inferred(client)) != expected[0]


def test_fork_of_an_old_session_is_of_its_version(client, root, versions):
    expected, session = inferred(client), opened(client)
    stepped(client, session, INPUTS[:3])
    replace(root, "a", versions[1])
    reload(client)
    fork = client.post(f"/sessions/{session}/fork", json={"step": 2}).json()["id"]
    assert stepped(client, fork, INPUTS[2:]) == close_to(expected[2:])


def test_fork_moves_an_old_session_to_the_new_version(client, root, versions):
    session = opened(client)
    stepped(client, session, INPUTS[:3])
    state = client.get(f"/sessions/{session}/state").json()["state"]
    replace(root, "a", versions[1])
    reload(client)
    moved = client.post(f"/sessions/{session}/fork", json={"model": "a"}).json()
    assert (moved["step"], client.get(f"/sessions/{moved['id']}/state").json()["state"]) == (3, state)
    assert stepped(client, moved["id"], INPUTS[3:]) != stepped(client, session, INPUTS[3:])
    fresh = client.post(f"/sessions/{session}/fork", json={"model": "a", "step": 0}).json()["id"]
    assert stepped(client, fresh, INPUTS) == close_to(inferred(client))


def test_fork_onto_a_model_with_other_states_is_refused(client, root, tmp_path):
    make_checkpoint(root / "other", "ntm")
    reload(client)
    session = opened(client)
    refused = client.post(f"/sessions/{session}/fork", json={"model": "other"})
    assert (refused.status_code, refused.json()["place"]) == (422, "model")
    refused = client.post(f"/sessions/{session}/fork", json={"model": "nobody"})
    assert (refused.status_code, refused.json()["code"]) == (404, "model_not_found")


def test_version_is_released_when_its_last_session_ends(client, server, root, versions):
    session = opened(client)
    replace(root, "a", versions[1])
    reload(client)
    time.sleep(reloading.GRACE_SECONDS + 2 * reloading.LOOK_SECONDS)
    assert versions_of(client, "a") == [True, False]
    client.delete(f"/sessions/{session}")
    until(lambda: versions_of(client, "a") == [True])
    assert "is released: its last session has ended" in server.log
    assert stepped(client, opened(client), INPUTS) == close_to(inferred(client))


def test_sessions_of_a_removed_model_go_on_without_new_ones(client, root):
    expected, session = inferred(client, "b"), opened(client, "b")
    shutil.rmtree(root / "b")
    assert reload(client)["removed"] == ["b"]
    assert client.post("/sessions", json={"model": "b"}).json()["code"] == "model_not_found"
    assert stepped(client, session, INPUTS) == close_to(expected)
    assert versions_of(client, "b") == [False]
    assert 'engram_sessions{model="b"} 1.0' in client.get("/metrics").text


def test_version_that_comes_back_is_offered_again(client, root, versions):
    session, expected = opened(client), inferred(client)
    for version in (1, 0):
        replace(root, "a", versions[version])
        assert reload(client)["changed"] == ["a"]
    assert (inferred(client), stepped(client, session, INPUTS)) == (expected, close_to(expected))
    assert versions_of(client, "a")[0]


def test_damaged_checkpoint_leaves_the_running_version(client, root, versions):
    expected = inferred(client)
    replace(root, "a", versions[1])
    (root / "a" / "model.onnx").write_bytes(b"junk")
    reloaded = reload(client)
    assert (reloaded["failed"].keys(), reloaded["changed"], reloaded["models"]) == ({"a"}, [], ["a", "b"])
    assert (inferred(client), client.get("/readyz").json()["failed"].keys()) == (expected, {"a"})


def test_reload_that_fails_changes_nothing(client, server, root):
    root.rename(root.with_name("away"))
    refused = client.post("/admin/reload")
    assert (refused.status_code, refused.json()["code"]) == (503, "reload_failed")
    assert "no directory" in refused.json()["detail"]
    root.mkdir()
    assert client.post("/admin/reload").json()["code"] == "reload_failed"
    assert [model["name"] for model in client.get("/models").json()] == ["a", "b"]
    assert "Traceback" not in server.log


def test_reloads_at_once_are_carried_out_one_after_the_other(client, root, versions):
    replace(root, "a", versions[1])
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: reload(client), range(4)))
    assert sorted(answer["changed"] for answer in answers) == [[], [], [], ["a"]]


def test_signal_loads_the_checkpoints_again(client, server, root, versions):
    before = inferred(client)
    replace(root, "a", versions[1])
    server.process.send_signal(signal.SIGHUP)
    until(lambda: "checkpoints loaded again: changed a" in server.log)
    assert inferred(client) != before
    shutil.rmtree(root)
    server.process.send_signal(signal.SIGHUP)
    until(lambda: "the checkpoints were not loaded again: checkpoints: no directory" in server.log)
    assert "Traceback" not in server.log


def test_restart_with_new_weights_refuses_old_sessions(root, versions, data):
    with running_server(data=data, checkpoints=root) as first, httpx.Client(base_url=first.url) as client:
        session = opened(client)
        replace(root, "a", versions[1])
        reload(client)
        stepped(client, session, INPUTS)
    with running_server(data=data, checkpoints=root) as second:
        refused = httpx.post(f"{second.url}/sessions/{session}/steps", json={"inputs": INPUTS})
    assert (refused.status_code, refused.json()["code"]) == (409, "model_changed")


def test_memory_of_a_released_version_is_free(root, versions, data, monkeypatch):
    monkeypatch.setattr(reloading, "GRACE_SECONDS", 0.0)
    app = create_app(Settings(checkpoints=root, data=data))

    async def test() -> "weakref.ref[object]":
        async with app.router.lifespan_context(app):
            old = weakref.ref(app.state.models.get("a").engine._worker._arenas)
            gc.collect()
            gc.freeze()  # as the server does: what is in a cycle is never freed
            replace(root, "a", versions[1])
            assert (await app.state.reloader.reload()).changed == ["a"]
            for _ in range(2):
                await app.state.reloader.release_unneeded()
            return old

    try:
        assert asyncio.run(test())() is None
    finally:
        gc.unfreeze()
