"""Every route and every WebSocket, by everybody who may not use it."""

import json
import re
from collections.abc import Iterator
from socket import create_connection
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Route, WebSocketRoute
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from app.access.keys import SCOPES, KeyLimits, new_key
from app.main import create_app
from app.settings import Settings
from app.stores.sqlite import SqliteKeyStore
from tests.app.harness import Server, running_server

STEP = {"inputs": [[0.0] * 10]}
MODEL = {"model": "dnc-copy"}
V2_INFER = {"inputs": [{"name": "inputs", "datatype": "FP32", "shape": [1, 10], "data": [0.0] * 10}]}
V2_STEP = V2_INFER | {"parameters": {"sequence_id": 7, "sequence_start": True}}

V2_CODES = {
    "requests with a key only": "key_required",
    "the key is unknown or was revoked": "invalid_key",
    "the key has the scopes": "scope_missing",
    "no path has control characters": "not_found",
    "is no name of this server": "host_refused",
    "comes from a page of": "origin_refused",
}
"""The codes of errors under /v2, which have a text alone, by what it says."""


class Row(NamedTuple):
    """A route: the scope that it needs, None for a public one; a request that is served, and its status."""

    scope: str | None
    status: int = 200
    body: Any = None
    query: str = ""


TABLE = {
    "GET /": Row(None),
    "GET /docs": Row(None),
    "GET /learn": Row(None),
    "GET /static/{name:path}": Row(None),
    "GET /openapi.json": Row(None),
    "GET /healthz": Row(None),
    "GET /readyz": Row(None),
    "GET /models": Row("any"),
    "GET /models/{name}": Row("any"),
    "GET /models/{name}/sample": Row("any"),
    "POST /infer": Row("infer", 200, MODEL | STEP),
    "POST /sessions": Row("sessions", 201, MODEL),
    "GET /sessions": Row("sessions"),
    "GET /sessions/{session}": Row("sessions"),
    "POST /sessions/{session}/steps": Row("sessions", 200, STEP),
    "POST /steps": Row("sessions", 200, {"sessions": ["{session}"], "inputs": [STEP["inputs"]]}),
    "POST /sessions/{session}/reset": Row("sessions"),
    "POST /sessions/{session}/rewind": Row("sessions", 200, {"step": 0}),
    "POST /sessions/{session}/fork": Row("sessions", 201, {}),
    "GET /sessions/{session}/snapshot": Row("sessions"),
    "GET /sessions/{session}/recording": Row("sessions"),
    "GET /sessions/{session}/state": Row("sessions"),
    "GET /stream": Row("sessions", 426),
    "GET /streams": Row("sessions", 426),
    "GET /sessions/{session}/stream": Row("sessions", 426),
    "GET /v2": Row("any"),
    "GET /v2/health/live": Row(None),
    "GET /v2/health/ready": Row(None),
    "GET /v2/models/stats": Row("admin"),
    "POST /v2/repository/index": Row("any"),
    "GET /v2/models/{name}": Row("any"),
    "GET /v2/models/{name}/ready": Row("any"),
    "GET /v2/models/{name}/config": Row("any"),
    "GET /v2/models/{name}/stats": Row("admin"),
    "POST /v2/models/{name}/infer": Row("infer", 200, V2_INFER),
    "GET /v2/models/{name}/versions/{version}": Row("any"),
    "GET /v2/models/{name}/versions/{version}/ready": Row("any"),
    "GET /v2/models/{name}/versions/{version}/config": Row("any"),
    "GET /v2/models/{name}/versions/{version}/stats": Row("admin"),
    "POST /v2/models/{name}/versions/{version}/infer": Row("sessions", 200, V2_STEP),
    "GET /metrics": Row("admin"),
    "POST /admin/reload": Row("admin"),
    "WS /stream": Row("sessions", 101, query="?model=dnc-copy"),
    "WS /sessions/{session}/stream": Row("sessions", 101),
    "WS /streams": Row("sessions", 101, query="?open={session}"),
    "WS /{path:path}": Row("any", 101),
    "DELETE /sessions/{session}": Row("sessions", 204),
}
"""In an order in which each can be served with one session."""

NEEDS_KEY = [name for name, row in TABLE.items() if row.scope]
SCOPED = [name for name, row in TABLE.items() if row.scope not in (None, "any")]
OF_A_SESSION = [name for name, row in TABLE.items() if "{session}" in name and row.status != 426]
UNSAFE = [name for name in TABLE if not name.startswith("GET ")]

OTHER_ID = "ABCDEFGHIJKLMNOPQRSTUV"
"""The id of no session, of the length of all."""


class Locked:
    """A server that requires keys, with keys of several kinds and a session."""

    def __init__(self, server: Server, keys: dict[str, str]) -> None:
        self.server = server
        self.keys = keys
        self.client = httpx.Client(base_url=server.url, timeout=30)
        self.session = self.open("all")

    def open(self, key: str) -> str:
        session: str = self.client.post("/sessions", json=MODEL, headers=self.bearer(key)).json()["id"]
        return session

    def bearer(self, key: str | None) -> dict[str, str]:
        return {} if key is None else {"Authorization": f"Bearer {self.keys.get(key, key)}"}

    def ask(
        self, name: str, key: str | None, session: str | None = None, ending: str = "", **headers: str
    ) -> tuple[int, str, str]:
        """Send a row's request; return the status, the code of the problem or "", and the whole body.

        ending: what comes behind the path.
        """
        row, (method, path) = TABLE[name], name.split(" ")
        headers = self.bearer(key) | {name.replace("_", "-"): value for name, value in headers.items()}
        named = re.sub(r"\{session\}", session or self.session, path + ending + row.query)
        named = named.replace("{name:path}", "inspector.css").replace("{name}", "dnc-copy")
        named = named.replace("{path:path}", "nothing").replace("{version}", "1")
        if method == "WS":
            return self._connect(named, headers)
        body = {"json": self._filled(row.body, session)} if row.body is not None else {}
        answer = self.client.request(method, named, headers=headers, **body)
        if path.startswith("/v2") and answer.is_error:
            return answer.status_code, v2_code(answer.json()), answer.text
        is_problem = answer.headers.get("content-type") == "application/problem+json"
        return answer.status_code, answer.json()["code"] if is_problem else "", answer.text

    def _filled(self, body: Any, session: str | None) -> Any:
        if not isinstance(body, dict) or "sessions" not in body:
            return body
        return body | {"sessions": [session or self.session]}

    def _connect(self, path: str, headers: dict[str, str]) -> tuple[int, str, str]:
        address = urlsplit(self.server.url)
        host = headers.pop("Host", address.netloc)
        connection = create_connection((address.hostname, address.port))
        try:
            with connect(f"ws://{host}{path}", additional_headers=headers, sock=connection) as socket:
                return 101, "", str(socket.recv())
        except InvalidStatus as refused:
            body = refused.response.body or b""
            return refused.response.status_code, re.findall(r'"code":"(\w+)"', body.decode())[0], body.decode()


def v2_code(document: dict[str, str]) -> str:
    """Return the code of an error under /v2."""
    [(key, text)] = document.items()
    assert key == "error"
    return next((code for words, code in V2_CODES.items() if words in text), text)


@pytest.fixture(scope="module")
def locked(tmp_path_factory, few) -> Iterator[Locked]:
    data = tmp_path_factory.mktemp("locked") / "data"
    store, keys = SqliteKeyStore(data), {}
    kinds = {"all": ("lab", SCOPES), "other": ("rival", SCOPES), "revoked": ("lab", SCOPES)}
    kinds |= {f"without {scope}": ("lab", SCOPES.keys() - {scope}) for scope in SCOPES}
    for name, (tenant, scopes) in kinds.items():
        key, keys[name] = new_key(tenant, scopes)
        store.add(key)
        if name == "revoked":
            store.revoke(key.id, key.created)
    key, keys["small"] = new_key("small", SCOPES, KeyLimits(max_sessions=2, max_batch=1, max_steps=2, max_streams=1))
    store.add(key)
    with running_server(data=data, checkpoints=few) as server:
        locked = Locked(server, keys)
        yield locked
        locked.client.close()


def routes_of(app: Any) -> Iterator[str]:
    """Yield the routes of an application, as the table names them."""
    routes: list[BaseRoute] = app.routes
    for route in routes:
        if hasattr(route, "original_router"):  # FastAPI's entry for an included router
            yield from routes_of(route.original_router)
        elif isinstance(route, WebSocketRoute):
            yield f"WS {route.path}"
        elif isinstance(route, (APIRoute, Route)):
            yield from (f"{method} {route.path}" for method in (route.methods or set()) - {"HEAD"})
        else:
            yield repr(route)


def test_table_has_every_route_and_websocket(tmp_path, few):
    app = create_app(Settings(checkpoints=few, data=tmp_path, store="memory"))
    assert sorted(routes_of(app)) == sorted(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_route_is_served_with_its_key(locked, name):
    session = locked.open("all") if name.startswith("DELETE") else None
    assert locked.ask(name, "all", session)[0] == TABLE[name].status


@pytest.mark.parametrize("name", [name for name in TABLE if name not in NEEDS_KEY])
@pytest.mark.parametrize("key", [None, "revoked", "engram_0_0"])
def test_public_route_is_served_without_a_key(locked, name, key):
    assert locked.ask(name, key)[0] == TABLE[name].status


@pytest.mark.parametrize("name", NEEDS_KEY)
def test_request_without_a_key_is_refused(locked, name):
    assert locked.ask(name, None)[:2] == (401, "key_required")
    assert locked.ask(name, None, Authorization="Basic YTpi")[:2] == (401, "key_required")


@pytest.mark.parametrize("name", NEEDS_KEY)
def test_request_with_a_key_that_is_not_valid_is_refused(locked, name):
    good = locked.keys["all"]
    changed = good[:-1] + ("0" if good[-1] != "0" else "1")
    for key in ("revoked", "engram_0_0", changed, good[:-1], f"{good}0", good.upper(), "x" * 64):
        assert locked.ask(name, key)[:2] == (401, "invalid_key"), key


@pytest.mark.parametrize("name", ["POST /infer", "POST /sessions/{session}/steps"])
@pytest.mark.parametrize("first", ["all", "revoked"])
def test_two_keys_are_refused_also_at_once(locked, name, first):
    row, path = TABLE[name], name.split(" ")[1].format(session=locked.session)
    keys = [("Authorization", f"Bearer {locked.keys[key]}") for key in (first, "all")]
    for kept in (keys[1:], keys):  # the session is in memory then
        answer = locked.client.post(path, json=row.body, headers=kept)
    assert (answer.status_code, answer.json().get("code")) == (401, "key_required")


@pytest.mark.parametrize("name", SCOPED)
def test_request_with_a_key_without_the_scope_is_refused(locked, name):
    assert locked.ask(name, f"without {TABLE[name].scope}")[:2] == (403, "scope_missing")


@pytest.mark.parametrize("name", SCOPED)
def test_path_with_a_newline_behind_it_is_none(locked, name):
    answer = locked.ask(name, f"without {TABLE[name].scope}", ending="%0A")
    assert answer[:2] == (404, "not_found")


@pytest.mark.parametrize("name", TABLE)
def test_request_to_a_foreign_host_is_refused(locked, name):
    for host in ("evil.example", "127.0.0.1.evil.example:80"):
        assert locked.ask(name, "all", Host=host)[:2] == (421, "host_refused")


@pytest.mark.parametrize("name", UNSAFE)
def test_request_of_a_foreign_page_is_refused(locked, name):
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1"):
        assert locked.ask(name, "all", Origin=origin)[:2] == (403, "origin_refused")


@pytest.mark.parametrize("name", UNSAFE)
def test_request_of_the_own_page_is_served(locked, name):
    session = locked.open("all") if name.startswith("DELETE") else None
    assert locked.ask(name, "all", session, Origin=locked.server.url)[0] == TABLE[name].status


@pytest.mark.parametrize("name", OF_A_SESSION)
def test_session_of_another_tenant_is_answered_as_none(locked, name):
    """Every answer to a foreign tenant is that to the id of no session, but for that id."""
    theirs, none = (locked.ask(name, "other", session) for session in (locked.session, OTHER_ID))
    same = [re.sub(rf'{locked.session}|{OTHER_ID}|"request_id":"\w+"', "", answer[2]) for answer in (theirs, none)]
    assert same[0] == same[1]
    assert theirs[:2] == none[:2]
    assert "session_not_found" in theirs[2]
    assert "lab" not in theirs[2] + none[2]


def test_many_sessions_of_another_tenant_are_answered_as_none(locked):
    for name in ("POST /steps", "WS /streams"):
        answer = locked.ask(name, "other")
        assert "session_not_found" in answer[2]
        assert "lab" not in answer[2]


def test_sessions_are_listed_to_their_tenant_alone(locked):
    mine, session = locked.session, locked.open("other")
    listed = {key: locked.ask("GET /sessions", key)[2] for key in ("all", "without infer", "other")}
    assert {key: (mine in text, session in text) for key, text in listed.items()} == {
        "all": (True, False),
        "without infer": (True, False),
        "other": (False, True),
    }


def test_idempotency_key_of_another_tenant_opens_another_session(locked):
    sessions = {
        key: locked.client.post(
            "/sessions", json=MODEL, headers=locked.bearer(key) | {"Idempotency-Key": "the same"}
        ).json()["id"]
        for key in ("all", "other", "without infer")
    }
    assert sessions["all"] == sessions["without infer"] != sessions["other"]


def v2_infer(locked: Locked, key: str, **parameters: Any) -> httpx.Response:
    """Send a request to infer under /v2."""
    body = V2_INFER | {"parameters": parameters}
    return locked.client.post("/v2/models/dnc-copy/infer", json=body, headers=locked.bearer(key))


def test_request_under_v2_needs_the_scope_of_what_it_asks(locked):
    sequence = {"sequence_id": 70, "sequence_start": True}
    statuses = {
        key: [v2_infer(locked, key).status_code, v2_infer(locked, key, **sequence).status_code]
        for key in ("without sessions", "without infer", "without admin")
    }
    assert statuses == {"without sessions": [200, 403], "without infer": [403, 200], "without admin": [200, 200]}


def test_sequence_of_another_tenant_is_none(locked):
    assert v2_infer(locked, "all", sequence_id=71, sequence_start=True).is_success
    theirs, none = (v2_infer(locked, "other", sequence_id=one) for one in (71, 72))
    assert (theirs.status_code, theirs.text.replace("71", "72")) == (none.status_code, none.text)
    assert v2_infer(locked, "other", sequence_id=71, sequence_start=True).is_success
    assert v2_infer(locked, "without infer", sequence_id=71).json()["parameters"]["step"] == 2


def test_limits_of_a_key_hold_by_every_way(locked):
    sessions = [locked.open("small"), locked.open("small")]
    long, two = [STEP["inputs"][0]] * 3, [STEP["inputs"]] * 2
    asked = {
        "/infer": [MODEL | {"inputs": long}, MODEL | {"inputs": two}],
        f"/sessions/{sessions[0]}/steps": [{"inputs": long}],
        "/steps": [{"sessions": sessions, "inputs": two}, {"sessions": sessions[:1], "inputs": [long]}],
    }
    for path, bodies in asked.items():
        for body in bodies:
            refused = locked.client.post(path, json=body, headers=locked.bearer("small"))
            assert (refused.status_code, refused.json()["code"]) == (422, "invalid_input"), body
    opened = locked.client.post("/sessions", json=MODEL, headers=locked.bearer("small"))
    assert (opened.status_code, opened.json()["code"], "retry-after" in opened.headers) == (429, "tenant_full", True)
    begun = v2_infer(locked, "small", sequence_id=7, sequence_start=True)
    assert (begun.status_code, [*begun.json()], "retry-after" in begun.headers) == (429, ["error"], True)


def test_limits_of_a_key_hold_for_its_streams(locked):
    url, headers = locked.server.socket_url, locked.bearer("small")
    with connect(f"{url}/streams", additional_headers=headers, proxy=None) as first:
        first.recv()
        with connect(f"{url}/streams", additional_headers=headers, proxy=None) as second:
            assert '"code":"streams_full"' in str(second.recv())
        first.send(json.dumps({"open": [OTHER_ID] * 2}))
        assert "max_batch" in str(first.recv())


def test_refused_requests_leave_no_traceback_and_no_key(locked):
    log = locked.server.log
    assert "Traceback" not in log
    assert not any(key.split("_")[-1] in log for key in locked.keys.values())
