"""The pages in a real browser: from the server alone, and behind a proxy that serves everything under a prefix."""

import re
from collections.abc import Iterator
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
from playwright.sync_api import expect

from app.api.pages import STATIC
from engram_client import Client
from tests.app.browsing import canvas, open_page
from tests.app.harness import Server
from tests.app.proxy import running_proxy

FILES = sorted(path for path in STATIC.rglob("*") if path.is_file() and path.suffix != ".html")
PAGES = ["/", "/docs", *(f"/static/{path.relative_to(STATIC)}" for path in FILES)]


@pytest.fixture(scope="module")
def proxied(server: Server) -> Iterator[str]:
    with running_proxy(server.url, "/memory/engram") as url:
        yield url


@pytest.mark.parametrize("path", PAGES)
def test_page_comes_with_headers_that_protect_it(client, path):
    page = client.get(path)
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert (page.headers["x-content-type-options"], page.headers["x-frame-options"]) == ("nosniff", "DENY")
    assert page.headers["referrer-policy"] == "no-referrer"


def test_page_that_a_browser_has_is_not_sent_again(client):
    first = client.get("/static/inspector.css")
    again = client.get("/static/inspector.css", headers={"If-None-Match": first.headers["etag"]})
    assert (first.headers["content-type"], first.headers["cache-control"]) == ("text/css; charset=utf-8", "no-cache")
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])


@pytest.mark.parametrize(
    "path", ["/static/", "/static/docs.html", "/static/nothing.js", "/static/../pages.py", "/static/%2e%2e/main.py"]
)
def test_file_that_is_no_page_is_not_found(client, path):
    assert client.get(path).json()["code"] == "not_found"


def test_redoc_is_gone(client):
    assert client.get("/redoc").status_code == 404


@pytest.mark.parametrize("name", ["index.html", "docs.html", "api.js", "docs.js"])
def test_pages_name_no_absolute_url_and_no_other_site(name):
    text = (STATIC / name).read_text()
    assert not re.findall(r"""["'`](?:/[^/"'`]|https?:|//)[^"'`]*""", text)


@pytest.fixture(params=["alone", "behind a proxy"])
def url(request: pytest.FixtureRequest, server: Server, proxied: str) -> str:
    return server.url if request.param == "alone" else proxied


def test_documentation_lists_and_tries_the_routes_without_any_other_host(browser, url):
    asked: list[str] = []
    messages: list[str] = []
    with open_page(browser, url) as page:
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: messages.append(message.text))
        page.goto(f"{url}/docs")
        route = page.locator("#operations-models-list_models")
        route.click()
        route.get_by_role("button", name="Try it out").click()
        route.get_by_role("button", name="Execute").click()
        expect(route.locator(".live-responses-table .response-col_status").nth(1)).to_contain_text("200")
    assert {urlsplit(address).netloc for address in asked if not address.startswith("data:")} == {urlsplit(url).netloc}
    assert f"{url}/models" in asked
    assert messages == []


def test_inspector_runs_a_model(browser, url):
    messages: list[str] = []
    with open_page(browser, url) as page:
        page.on("console", lambda message: messages.append(message.text))
        page.goto(f"{url}/?model=dnc-copy")
        expect(page.locator("#verdict")).to_contain_text("0 wrong bits")
        expect(canvas(page, "usage")).to_be_visible()
        for link in ("API", "Metrics"):
            target = urljoin(page.url, page.get_by_role("link", name=link).get_attribute("href"))
            assert httpx.get(target).status_code == 200
    assert messages == []


def test_python_client_speaks_through_a_prefix(url):
    for address in (url, f"{url}/"):
        with Client(address) as client:
            session = client.open("dnc-copy")
            session.run([[0.0] * 10] * 2)
            with session.stream() as stream:
                assert stream.run([[0.0] * 10]).step == 3


def test_location_leads_to_the_session_that_was_opened(url):
    opened = httpx.post(f"{url}/sessions", json={"model": "dnc-copy"})
    address = urljoin(f"{url}/sessions", opened.headers["location"])
    assert httpx.get(address).json()["id"] == opened.json()["id"]
    forked = httpx.post(f"{address}/fork")
    assert httpx.get(urljoin(f"{address}/fork", forked.headers["location"])).json()["id"] == forked.json()["id"]
