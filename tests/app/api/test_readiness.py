"""GET /readyz: of all parts, of some, and for callers without a key."""

import asyncio
from typing import Any

import httpx
import pytest

from app.main import create_app
from app.settings import Settings
from tests.app.harness import CHECKPOINTS


def test_ready_server_names_the_outcome_of_every_part(client):
    ready = client.get("/readyz").json()
    store, *models = ready["checks"]
    assert store == {"part": "store", "ready": True}
    assert [check["model"] for check in models] == ready["models"]
    assert all(check["ready"] and check["offered"] and len(check["version"]) == 64 for check in models)


@pytest.mark.parametrize(
    ("query", "parts"),
    [("model=dnc-copy", ["dnc-copy"]), ("store", [None]), ("store&model=dnc-copy", [None, "dnc-copy"])],
)
def test_only_the_parts_that_are_named_are_asked(client, query, parts):
    checks = client.get(f"/readyz?{query}").json()["checks"]
    assert [check.get("model") for check in checks] == parts


@pytest.mark.parametrize("query", ["model=nobody", "store&model=nobody"])
def test_readiness_of_an_unknown_model_is_not_found(client, query):
    refused = client.get(f"/readyz?{query}")
    assert (refused.status_code, refused.json()["code"]) == (404, "model_not_found")


def asked(few: Any, data: Any, broken: str | None, path: str, key_file: Any = None) -> httpx.Response:
    """Ask a server for its readiness, without a key; broken: the model whose engine has stopped."""
    app = create_app(Settings(checkpoints=few, data=data, key_file=key_file))

    async def ask() -> httpx.Response:
        async with app.router.lifespan_context(app):
            if broken is not None:
                app.state.models.get(broken).engine.give_up()
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
                return await client.get(path)

    return asyncio.run(ask())


def test_part_that_is_not_ready_is_named_with_its_reason(few, data):
    answer = asked(few, data, "ntm-copy", "/readyz")
    problem = answer.json()
    reasons = {check.get("model"): check.get("reason") for check in problem["checks"] if not check["ready"]}
    assert (answer.status_code, "from ntm-copy" in problem["detail"]) == (503, True)
    assert reasons == {"ntm-copy": "the server is stopping; try again later"}


def test_other_parts_are_ready_beside_one_that_is_not(few, data):
    assert asked(few, data, "ntm-copy", "/readyz?model=dnc-copy").status_code == 200


@pytest.mark.parametrize(
    ("broken", "path", "status"),
    [
        (None, "/readyz", 200),
        (None, "/readyz?model=dnc-copy", 200),
        (None, "/readyz?store&model=nobody", 503),
        ("ntm-copy", "/readyz", 503),
    ],
)
def test_caller_without_a_key_learns_whether_it_is_ready(few, data, tmp_path, broken, path, status):
    (key_file := tmp_path / "engram.key").write_text("k" * 64)
    answer = asked(few, data, broken, path, key_file)
    assert (answer.status_code, answer.json().get("status")) == (status, "ready" if status == 200 else 503)
    assert not {"checks", "models", "failed"} & answer.json().keys()
    assert not any(model.name in answer.text for model in CHECKPOINTS.iterdir())
