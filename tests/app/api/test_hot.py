"""Hot routes, which are answered ahead of FastAPI's router, behave like all other routes."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI

from app.api import routes
from app.api.hot import HotRoute
from app.main import create_app
from app.settings import Settings
from tests.app.api.test_http import open_session, problem

HOT = [route for route in routes.router.routes if isinstance(route, HotRoute)]
GOOD = {"inputs": [[0.5] * 10]}


def test_hot_routes_need_only_the_parameters_of_their_paths():
    assert {route.path for route in HOT} == {"/infer", "/steps", "/sessions/{session}/steps"}
    for route in HOT:
        needs = route.dependant
        assert (needs.dependencies, needs.query_params, needs.header_params, needs.cookie_params) == ([], [], [], [])
        assert (route.methods, route.body_field) == ({"POST"}, None)
        assert {parameter.field_info.annotation for parameter in needs.path_params} <= {str}


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[FastAPI]:
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        yield app


ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "steps": ("/sessions/SESSION/steps", {"json": GOOD | {"trace": ["usage"]}}),
    "a sequence": ("/infer", {"json": GOOD | {"model": "dnc-copy"}}),
    "a batch": ("/infer", {"json": {"model": "dnc-copy", "inputs": [GOOD["inputs"]] * 2}}),
    "many numbers": (
        "/infer",
        {"json": {"model": "dnc-copy", "inputs": GOOD["inputs"] * 200, "trace": ["usage", "link"]}},
    ),
    "no session": ("/sessions/nobody/steps", {"json": GOOD}),
    "a session with a space": ("/sessions/no%20body/steps", {"json": GOOD}),
    "a bad input": ("/sessions/SESSION/steps", {"json": {"inputs": [[None]]}}),
    "no JSON": ("/infer", {"content": b"{"}),
    "no body": ("/infer", {}),
    "too much": ("/infer", {"content": b" " * 200_001}),
    "another coding": ("/infer", {"content": b"x", "headers": {"Content-Encoding": "br"}}),
}


def test_hot_route_behind_a_root_path_is_answered_alike(tmp_path, few):
    settings = Settings(checkpoints=few, data=tmp_path / "data", max_body_bytes=200_000)

    async def ask(app: FastAPI, root: str) -> dict[str, Any]:
        transport = httpx.ASGITransport(app, root_path=root)
        url, headers = f"http://localhost{root}/", {"Content-Type": "application/json", "X-Request-ID": "same"}
        async with httpx.AsyncClient(transport=transport, base_url=url, headers=headers) as client:
            session = (await client.post("sessions", json={"model": "dnc-copy"})).json()["id"]
            answers = {}
            for case, (path, request) in ASKED.items():
                answer = await client.post(path[1:].replace("SESSION", session), **request)
                answers[case] = (answer.status_code, answer.headers, answer.content.replace(session.encode(), b"S"))
            return answers

    async def test() -> None:
        async with running(settings) as app:
            assert await ask(app, "") == await ask(app, "/below")
            counted = app.state.metrics.exposition().decode()
            assert 'engram_requests_total{method="POST",route="/sessions/{session}/steps",status="404"} 4.0' in counted
            assert 'route="other"' not in counted

    asyncio.run(test())


@pytest.mark.parametrize(
    "path", ["/sessions/no%2Fbody/steps", "/sessions//steps", "/sessions/nobody/steps/more", "/x/infer"]
)
def test_path_similar_to_a_hot_route_is_not_found(client, path):
    problem(client.post(path, json=GOOD), 404, "not_found")


def test_session_is_named_by_what_its_path_says_when_decoded(client):
    assert (
        problem(client.post("/sessions/no%20b%C3%B6dy/steps", json=GOOD), 404, "session_not_found")["got"] == "no bödy"
    )
    session = open_session(client)
    assert client.post(f"/sessions/%{ord(session[0]):02x}{session[1:]}/steps", json=GOOD).json()["step"] == 1


def leave(url: str, path: str, body: bytes, announced: int) -> None:
    """Send a request, or the beginning of one, and go away."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port)) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {announced}\r\n"
        head += "Content-Type: application/json\r\n\r\n"
        connection.sendall(head.encode() + body)
        time.sleep(0.2)


def wait_for(client: httpx.Client, line: str) -> None:
    deadline = time.monotonic() + 20
    while line not in client.get("/metrics").text:
        assert time.monotonic() < deadline, f"{line} is not there"
        time.sleep(0.1)


@pytest.mark.parametrize(("path", "route"), [("/infer", "/infer"), ("/sessions/x/steps", "/sessions/{session}/steps")])
def test_client_gone_before_its_body_is_counted_as_gone(client, server, path, route):
    leave(server.url, path, b'{"inputs"', 1000)
    wait_for(client, f'engram_requests_total{{method="POST",route="{route}",status="499"}} ')
