"""Pages of other origins in a real Chromium: they read nothing of a server and change nothing there."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import BrowserContext, Page

from tests.app.browsing import TIMEOUT_MS, running_browser
from tests.app.harness import Server, running_server

FOREIGN = "foreign.example"
"""A name that the browser resolves to 127.0.0.1."""

FLAGS = ["--host-resolver-rules=MAP *.example 127.0.0.1", "--disable-features=LocalNetworkAccessChecks"]
"""Resolve the name, and leave the defence to the server: newer browsers ask before a page may reach this machine."""

STEP = '{"inputs": [[0, 0, 0, 0, 0, 0, 0, 0, 1, 0]]}'
OPEN = '{"model": "dnc-copy"}'

GET = (
    "/sessions",
    "/sessions/ID",
    "/sessions/ID/state",
    "/sessions/ID/recording",
    "/models",
    "/metrics",
    "/openapi.json",
)

POST = {
    "/sessions": OPEN,
    "/infer": STEP.replace("{", '{"model": "dnc-copy", ', 1),
    "/steps": '{"sessions": ["ID"], "inputs": [[[0, 0, 0, 0, 0, 0, 0, 0, 1, 0]]]}',
    "/sessions/ID/steps": STEP,
    "/sessions/ID/reset": "",
    "/sessions/ID/rewind": '{"step": 0}',
    "/sessions/ID/fork": "",
}

TYPES = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/json", "")

HELPERS = """
const asked = (path, options) => fetch(SERVER + path, options).then(it => it.text()).then(it => it || null, () => null);
const heard = socket => new Promise(done => {
    socket.onmessage = event => done(`heard ${event.data}`);
    socket.onclose = socket.onerror = () => done(null);
});
const loaded = (name, attributes) => new Promise(done => {
    const element = Object.assign(document.createElement(name), attributes);
    element.onload = () => done(element);
    element.onerror = () => done(null);
    document.body.append(element);
});
const sent = (path, type, fields) => new Promise(done => {
    const frame = document.createElement("iframe");
    frame.name = `f${Math.random()}`;
    document.body.append(frame);
    const form = document.createElement("form");
    Object.assign(form, {action: SERVER + path, method: "POST", enctype: type, target: frame.name});
    for (const [name, value] of Object.entries(fields)) {
        form.append(Object.assign(document.createElement("input"), {name, value}));
    }
    document.body.append(form);
    frame.onload = () => done(within(frame));
    form.submit();
});
const within = frame => {
    try { return frame.contentDocument && frame.contentDocument.body.innerText || null; } catch { return null; }
};
"""
"""Ways to ask a server: each gives what the page could read, null for nothing."""


def fetches() -> Iterator[tuple[str, str]]:
    """Yield the names and the code of requests by fetch, XMLHttpRequest and sendBeacon."""
    for path in GET:
        for options in ("{}", "{credentials: 'include'}", "{mode: 'no-cors'}", "{headers: {'X-Other': 'x'}}"):
            yield f"GET {path} {options}", f"asked('{path}', {options})"
    for path, body in POST.items():
        for kind in TYPES:
            headers = f"headers: {{'Content-Type': '{kind}'}}, " if kind else ""
            for mode in ("cors", "no-cors"):
                options = f"{{method: 'POST', mode: '{mode}', credentials: 'include', {headers}body: `{body}`}}"
                yield f"POST {path} {kind} {mode}", f"asked('{path}', {options})"
        yield f"beacon {path}", f"navigator.sendBeacon(SERVER + '{path}', `{body}`) && null"
    for method in ("DELETE", "PUT", "PATCH", "OPTIONS", "HEAD"):
        yield f"{method} /sessions/ID", f"asked('/sessions/ID', {{method: '{method}'}})"


def forms() -> Iterator[tuple[str, str]]:
    """Yield forms: with text/plain, name=value is the JSON of a request, which has its first key twice."""
    for path, body in POST.items():
        key = body.partition(":")[0]
        fields = f'{{[`{key}: "`]: `", {body[1:]}`}}' if body else "{}"
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
            yield f"form {path} {kind}", f"sent('{path}', '{kind}', {fields})"


SOCKETS = {
    f"WebSocket {path} {protocols}": f"heard(new WebSocket(SERVER.replace('http', 'ws') + '{path}', {protocols}))"
    for path in ("/stream?model=dnc-copy", "/sessions/ID/stream", "/streams?model=dnc-copy&count=2", "/streams?open=ID")
    for protocols in ("[]", "['engram.json']", "['engram.msgpack']")
}

INCLUDES = {
    "a script": "loaded('script', {src: SERVER + '/models'}).then(it => window.models || null)",
    "a module": "import(SERVER + '/models').then(it => Object.keys(it).join(), () => null)",
    "an image": "loaded('img', {src: SERVER + '/metrics'}).then(it => it && it.naturalWidth || null)",
    "a style": "loaded('link', {rel: 'stylesheet', href: SERVER + '/models'}).then(it => {"
    "try { return it && it.sheet.cssRules.length || null } catch { return null } })",
    "a frame of sessions": "loaded('iframe', {src: SERVER + '/sessions'}).then(within)",
    "a frame of the page": "loaded('iframe', {src: SERVER + '/'}).then(within)",
    "an object": "loaded('object', {data: SERVER + '/sessions', type: 'text/html'}).then(it => it && within(it))",
    "an EventSource": "heard(new EventSource(SERVER + '/sessions/ID/recording'))",
    "a window": "new Promise(done => { const other = window.open(SERVER + '/sessions'); setTimeout(() => {"
    "try { done(other.document.body.innerText || null) } catch { done(null) } }, 500) })",
    "a worker": "new Promise(done => done(new Worker(SERVER + '/static/app.js'))).then(() => 'made', () => null)",
}

ATTEMPTS = dict([*fetches(), *forms(), *SOCKETS.items(), *INCLUDES.items()])


class Foreign(http.server.BaseHTTPRequestHandler):
    """Serves an empty page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>foreign</title><body>")

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture(scope="module")
def foreign_port() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Foreign) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, few: Path) -> Iterator[Server]:
    with running_server(data=tmp_path_factory.mktemp("foreign") / "data", checkpoints=few) as server:
        yield server


@pytest.fixture(scope="module")
def context() -> Iterator[BrowserContext]:
    with running_browser(*FLAGS) as browser:
        context = browser.new_context()
        context.set_default_timeout(TIMEOUT_MS)
        yield context


@pytest.fixture
def client(served: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url) as client:
        yield client


def changeable(client: httpx.Client, reads: bool = False) -> Any:
    """Return where all sessions are, and, unless `reads`, the counts of steps: a recording is stepped again."""
    listed = client.get("/sessions?limit=1000").json()
    places = {session["id"]: [session[key] for key in ("step", "latest", "seq")] for session in listed}
    lines = client.get("/metrics").text.splitlines()
    return places, [] if reads else [line for line in lines if "steps_total" in line]


@pytest.fixture
def session(client: httpx.Client) -> str:
    opened: str = client.post("/sessions", json={"model": "dnc-copy"}).json()["id"]
    assert client.post(f"/sessions/{opened}/steps", json=json.loads(STEP)).is_success
    return opened


def try_all(page: Page, client: httpx.Client, session: str) -> tuple[dict[str, Any], list[str]]:
    """Return what a page could read by each attempt, and the attempts that changed anything."""
    read, changed = {}, []
    server = str(client.base_url).rstrip("/")
    for name, code in ATTEMPTS.items():
        reads = name.startswith("GET") or name in INCLUDES
        before = changeable(client, reads)
        script = f"const SERVER = '{server}';\n{HELPERS}\nreturn {code};".replace("ID", session)
        found = page.evaluate(f"async () => {{ {script} }}")
        if found is not None:
            read[name] = str(found)[:80]
        if changeable(client, reads) != before:
            changed.append(name)
    return read, changed


@pytest.mark.slow
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", FOREIGN])
def test_page_of_another_origin_reads_and_changes_nothing(client, context, foreign_port, session, host):
    page = context.new_page()
    page.goto(f"http://{host}:{foreign_port}/")
    read, changed = try_all(page, client, session)
    page.close()
    assert not read
    assert not changed


@pytest.mark.slow
def test_page_of_a_rebound_name_reads_and_changes_nothing(client, context, session):
    """A page whose name leads to the server only after it was loaded has the server's origin for the browser."""
    origin = f"http://{FOREIGN}:{client.base_url.port}"
    page = context.new_page()
    page.route(f"{origin}/evil", lambda route: route.fulfill(body="<body>", content_type="text/html"))
    page.goto(f"{origin}/evil")
    before, read = changeable(client, reads=True), {}
    for method, path, body in [("GET", path, None) for path in GET] + [("POST", path, POST[path]) for path in POST]:
        options = {"method": method, "body": body, "headers": {"Content-Type": "application/json"}}
        script = "([path, options]) => fetch(path, options).then(async it => [it.status, await it.text()])"
        status, text = page.evaluate(script, [path.replace("ID", session), options])
        if status != 421 or session in text or "dnc-copy" in text:
            read[f"{method} {path}"] = (status, text[:80])
    page.close()
    assert (read, changeable(client, reads=True)) == ({}, before)


@pytest.mark.slow
def test_own_page_reads_and_steps(client, context, session):
    """The attempts are able to succeed: of the server's own page they do."""
    page = context.new_page()
    page.goto(str(client.base_url))
    read, changed = try_all(page, client, session)
    page.close()
    assert {"GET /sessions {}", "WebSocket /stream?model=dnc-copy []"} <= read.keys()
    assert {"POST /sessions application/json cors", "DELETE /sessions/ID"} <= set(changed)
