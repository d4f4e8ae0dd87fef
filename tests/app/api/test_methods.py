"""The methods that routes answer beside their own: laws over all routes of a real server."""

import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI

from app.api import routes
from app.api.pages import add_pages
from app.api.problems import is_v2
from app.api.v2 import routes as v2
from tests.app.api.test_http import open_session, problem


def offered() -> dict[str, set[str]]:
    """Return the methods of every path of the server, as they are registered."""
    pages = FastAPI(docs_url=None, redoc_url=None)
    add_pages(pages)
    found: dict[str, set[str]] = {}
    for route in [*routes.router.routes, *v2.router.routes, *pages.routes]:
        found.setdefault(route.path, set()).update(route.methods - {"HEAD"})  # type: ignore[attr-defined]
    return found


OFFERED = offered()
STREAMS = ["/stream", "/streams", "/sessions/{session}/stream"]
READABLE = sorted(path for path, methods in OFFERED.items() if "GET" in methods and path not in STREAMS)


@pytest.fixture(scope="module")
def paths(server) -> Iterator[dict[str, str]]:
    """The routes of the server, with what stands for their parameters."""
    with httpx.Client(base_url=server.url) as client:
        session = open_session(client)
        client.post(f"/sessions/{session}/steps", json={"inputs": [[0.0] * 10] * 3})
        values = {"{session}": session, "{name:path}": "inspector.css", "{name}": "dnc-copy", "{version}": "1"}
        filled = {path: path for path in OFFERED}
        for parameter, value in values.items():
            filled = {path: text.replace(parameter, value) for path, text in filled.items()}
        yield filled


def detail(path: str, response: httpx.Response, status: int, code: str) -> str:
    """Return what is said of a refused request, in the form of errors on its path."""
    if not is_v2(path):
        return str(problem(response, status, code)["detail"])
    assert (response.status_code, [*response.json()]) == (status, ["error"])
    return str(response.json()["error"])


def test_table_has_the_routes_that_there_are():
    assert {"/", "/docs", "/openapi.json", "/static/{name:path}", "/readyz", "/sessions/{session}/recording"} < {
        *READABLE
    }
    assert OFFERED["/sessions/{session}"] == {"GET", "DELETE"}


@pytest.mark.parametrize("path", READABLE)
def test_head_answers_as_get_without_a_body(client, paths, path):
    changing = {"date", "x-request-id"}
    changing |= {"content-length"} if path in ("/metrics", "/sessions", "/sessions/{session}") else set()
    got, head = (client.request(method, paths[path]) for method in ("GET", "HEAD"))
    assert (head.status_code, head.content) == (200, b"")
    assert {name: value for name, value in head.headers.items() if name not in changing} == {
        name: value for name, value in got.headers.items() if name not in changing | {"transfer-encoding"}
    }
    assert ("content-length" in head.headers) == ("content-length" in got.headers)


@pytest.mark.parametrize("path", sorted(OFFERED))
def test_allow_names_all_methods_of_the_path(client, paths, path):
    methods = {*OFFERED[path], "OPTIONS"} | ({"HEAD"} if "GET" in OFFERED[path] else set())
    asked = client.options(paths[path])
    assert (asked.status_code, asked.content) == (204, b"")
    refused = client.request("PUT", paths[path])
    assert "PUT" in detail(path, refused, 405, "method_not_allowed")
    assert {*asked.headers["allow"].split(", ")} == {*refused.headers["allow"].split(", ")} == methods


@pytest.mark.parametrize("path", sorted(OFFERED.keys() - {"/", "/static/{name:path}"}))
def test_path_with_a_trailing_slash_is_not_found_nor_redirected(client, paths, path):
    for method in ("GET", "POST", "HEAD", "OPTIONS"):
        answer = client.request(method, f"{paths[path]}/")
        assert (answer.status_code, "location" in answer.headers) == (404, False)
    reply = detail(path, client.post(f"{paths[path]}/"), 404, "not_found")
    assert f"without the slash at its end is {paths[path]}" in reply


def test_head_of_unknown_path_is_refused_without_a_body(client):
    for path, status in (("/nothing", 404), ("/models/nobody", 404), ("/infer", 405), ("/sessions?limit=0", 422)):
        answer = client.head(path)
        assert (answer.status_code, answer.content) == (status, b"")
        assert int(answer.headers["content-length"]) > 0


@pytest.mark.parametrize("path", STREAMS)
def test_stream_asked_for_without_an_upgrade_says_what_it_is(client, paths, path):
    answer = client.get(paths[path])
    assert "a proxy in between must forward" in str(problem(answer, 426, "upgrade_required")["detail"])
    assert (answer.headers["upgrade"], client.head(paths[path]).status_code) == ("websocket", 426)


def test_options_of_the_server_as_a_whole_are_answered(client, server):
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 204 ")


def test_head_is_counted_as_head(client):
    client.head("/healthz")
    assert 'engram_requests_total{method="HEAD",route="/healthz",status="200"}' in client.get("/metrics").text


def test_head_of_a_long_recording_computes_only_its_beginning(client):
    session = open_session(client)
    for _ in range(10):
        client.post(f"/sessions/{session}/steps", json={"inputs": [[0.0] * 10] * 500})
    counter = 'engram_steps_total{model="dnc-copy"} '
    before = client.get("/metrics").text.split(counter)[1].split()[0]
    assert client.head(f"/sessions/{session}/recording").status_code == 200
    client.get("/readyz")
    after = client.get("/metrics").text.split(counter)[1].split()[0]
    assert float(after) - float(before) < 5000
