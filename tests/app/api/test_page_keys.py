"""The pages of a server that requires keys, in a real browser."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from app.access.keys import SCOPES, KeyLimits, new_key
from app.stores.sqlite import SqliteKeyStore
from tests.app.browsing import TIMEOUT_MS, Frames, clear_drawing, draw, run
from tests.app.harness import Server, running_server

WRONG = "engram_0_" + "0" * 64
OPEN = "/?model=dnc-copy"


class Locked:
    """A server that requires keys, and its store of keys."""

    def __init__(self, server: Server, store: SqliteKeyStore) -> None:
        self.server = server
        self.store = store

    def key(self, *scopes: str, limits: KeyLimits | None = None) -> str:
        key, token = new_key(scopes=scopes or SCOPES, limits=limits or KeyLimits())
        self.store.add(key)
        self._wait_until(200, token)
        return token

    def revoke(self, token: str) -> None:
        self.store.revoke(token.split("_")[1], 1.0)
        self._wait_until(401, token)

    def _wait_until(self, status: int, token: str) -> None:
        """Wait until a key is answered like this: the server reads those of the store every second."""
        headers = {"Authorization": f"Bearer {token}"}
        while httpx.get(f"{self.server.url}/models", headers=headers).status_code != status:
            time.sleep(0.05)


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory, few: Path) -> Iterator[Locked]:
    data = tmp_path_factory.mktemp("locked") / "data"
    store = SqliteKeyStore(data)
    store.add(new_key()[0])
    with running_server(data=data, checkpoints=few) as server:
        yield Locked(server, store)


class Watched:
    """A tab, and all that it wrote to its console, and asked for."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        self.messages: list[str] = []
        self.urls: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: self.messages.append(message.text))
        page.on("request", lambda request: self.urls.append(request.url))


@pytest.fixture
def context(browser: Browser, locked: Locked) -> Iterator[BrowserContext]:
    context = browser.new_context(base_url=locked.server.url)
    context.set_default_timeout(TIMEOUT_MS)
    yield context
    context.close()


@pytest.fixture
def tab(context: BrowserContext) -> Iterator[Watched]:
    tab = Watched(context.new_page())
    yield tab
    assert tab.errors == []
    assert all("the server responded with a status of 4" in message for message in tab.messages), tab.messages


@pytest.fixture
def page(tab: Watched) -> Page:
    return tab.page


def field(page: Page) -> Locator:
    return page.get_by_role("textbox", name="Key", exact=True)


def give(page: Page, key: str) -> None:
    field(page).fill(key)
    page.get_by_role("button", name="Use this key").click()


def unlock(page: Page, key: str) -> None:
    page.goto(OPEN)
    give(page, key)
    expect(page.locator("#verdict")).not_to_be_empty()


def test_key_is_asked_for_in_a_form_of_its_own(page: Page) -> None:
    page.goto(OPEN)
    expect(page.get_by_role("form", name="A key is needed")).to_be_visible()
    expect(page.locator("#key-error")).to_contain_text("this server takes requests with a key only")
    expect(field(page)).to_be_focused()
    expect(field(page)).to_have_accessible_description(re.compile("with a key only.*kept in this tab only"))
    expect(page.locator("#bench")).to_have_attribute("inert", "")
    expect(page.get_by_role("link", name="Metrics")).to_be_hidden()


def test_key_is_hidden_unless_it_is_to_be_shown(page: Page) -> None:
    page.goto(OPEN)
    expect(field(page)).to_have_attribute("type", "password")
    show = page.get_by_role("button", name="Show")
    for shown, kind in (("true", "text"), ("false", "password")):
        show.click()
        expect(show).to_have_attribute("aria-pressed", shown)
        expect(field(page)).to_have_attribute("type", kind)


@pytest.mark.parametrize(
    ("key", "fault"), [(WRONG, "the key is unknown or was revoked"), ("a kéy ☃", "A key has letters, digits")]
)
def test_wrong_key_is_refused_and_leaves_the_page(page: Page, key: str, fault: str) -> None:
    page.goto(OPEN)
    page.get_by_role("button", name="Show").click()
    give(page, key)
    expect(page.locator("#key-error")).to_contain_text(fault)
    expect(field(page)).to_be_focused()
    expect(field(page)).to_have_value("")
    expect(field(page)).to_have_attribute("type", "password")
    assert page.evaluate("sessionStorage.length") == 0


def test_right_key_opens_the_page_and_stays_out_of_sight(page: Page, tab: Watched, locked: Locked) -> None:
    key = locked.key()
    page.goto(OPEN)
    give(page, WRONG)
    give(page, f"  {key}\n")
    expect(page.locator("#verdict")).to_contain_text("0 wrong bits")
    expect(page.locator("#key-form")).to_be_hidden()
    expect(page.locator("#bench")).not_to_have_attribute("inert", "")
    inputs = page.eval_on_selector_all("input", "all => all.map(input => input.value).join()")
    secret = key.split("_")[2]
    assert secret not in page.content() + inputs + "".join(tab.urls + tab.messages) + locked.server.log
    stored = page.evaluate("[JSON.stringify(localStorage) + document.cookie, JSON.stringify(sessionStorage)]")
    assert [secret in text for text in stored] == [False, True]


def test_reload_keeps_the_key_and_another_tab_does_not(page: Page, context: BrowserContext, locked: Locked) -> None:
    unlock(page, locked.key())
    page.reload()
    expect(page.locator("#verdict")).to_contain_text("0 wrong bits")
    expect(page.locator("#key-form")).to_be_hidden()
    other = context.new_page()
    other.goto(OPEN)
    expect(field(other)).to_be_visible()


def test_key_revoked_under_way_is_asked_for_again(page: Page, locked: Locked) -> None:
    key = locked.key()
    unlock(page, key)
    clear_drawing(page, 5)
    draw(page, "drawing", column=2, row=6)
    locked.revoke(key)
    page.click("#run")
    expect(page.locator("#key-error")).to_contain_text("the key is unknown or was revoked")
    assert page.evaluate("sessionStorage.length") == 0
    frames = Frames(page)
    give(page, locked.key())
    assert drawn(frames.finish()[0]) == [(0, 8), (3, 6), (6, 9)]
    expect(page.locator("#run")).to_be_focused()


def drawn(sent: Any) -> list[tuple[int, int]]:
    """Return the ones of the inputs that were sent, as (step, channel)."""
    return [(t, channel) for t, step in enumerate(sent["inputs"]) for channel, bit in enumerate(step) if bit]


def test_forgotten_key_is_gone_and_another_is_asked_for(page: Page, locked: Locked) -> None:
    unlock(page, locked.key())
    forget = page.get_by_role("button", name="Forget the key")
    forget.click()
    expect(field(page)).to_be_focused()
    expect(forget).to_be_hidden()
    assert page.evaluate("sessionStorage.length") == 0
    give(page, WRONG)
    expect(page.locator("#key-error")).to_contain_text("the key is unknown")
    give(page, locked.key())
    expect(forget).to_be_focused()
    run(page)
    expect(page.locator("#verdict")).to_contain_text("0 wrong bits")


def test_key_without_the_scope_is_reported(page: Page, locked: Locked) -> None:
    page.goto(OPEN)
    give(page, locked.key("infer"))
    expect(page.locator("#error")).to_contain_text("the key has the scopes infer, but /sessions needs sessions")
    expect(page.get_by_role("button", name="Forget the key")).to_be_visible()


def test_key_over_its_rate_is_waited_for(page: Page, locked: Locked) -> None:
    page.goto(OPEN)
    give(page, locked.key(limits=KeyLimits(steps_per_second=0.01)))
    expect(page.locator("#verdict")).not_to_be_empty()
    page.click("#run")
    expect(page.locator("#waiting")).to_contain_text("the key may have taken all the steps that it may for now")
    expect(page.locator("#results")).to_have_attribute("aria-busy", "true")


def test_key_over_its_sessions_is_reported_with_the_wait(page: Page, locked: Locked) -> None:
    key = locked.key(limits=KeyLimits(max_sessions=1))
    headers = {"Authorization": f"Bearer {key}"}
    assert httpx.post(f"{locked.server.url}/sessions", json={"model": "dnc-copy"}, headers=headers).status_code == 201
    page.goto(OPEN)
    give(page, key)
    expect(page.locator("#error")).to_contain_text("the key opens one only while there are fewer than 1")
    expect(page.locator("#error")).to_contain_text(re.compile(r"Try again after \d+ s\."))


def test_storage_that_is_forbidden_costs_the_reload_alone(page: Page, locked: Locked) -> None:
    page.add_init_script("Object.defineProperty(window, 'sessionStorage', {get() { throw new Error('forbidden'); }})")
    unlock(page, locked.key())
    run(page)
    page.reload()
    expect(field(page)).to_be_visible()


def test_open_server_shows_no_form_and_no_button(browser: Browser, server: Server) -> None:
    page = browser.new_page(base_url=server.url)
    page.goto(OPEN)
    expect(page.locator("#verdict")).to_contain_text("0 wrong bits")
    expect(page.locator("#key-form")).to_be_hidden()
    expect(page.get_by_role("button", name="Forget the key")).to_be_hidden()
    expect(page.get_by_role("link", name="Metrics")).to_be_visible()
    page.close()


def test_documentation_sends_the_key_and_keeps_it_nowhere(page: Page, tab: Watched, locked: Locked) -> None:
    key = locked.key()
    page.goto("/docs")
    assert list_models(page) == 401
    authorize(page, key)
    assert list_models(page) == 200
    secret = key.split("_")[2]
    assert secret not in page.content() + "".join(tab.urls + tab.messages)
    expect(page.locator(".curl-command")).to_contain_text("Bearer KEY")
    assert page.evaluate("[sessionStorage.length, localStorage.length, document.cookie]") == [0, 0, ""]
    page.goto("/docs")
    assert list_models(page) == 401


def authorize(page: Page, key: str) -> None:
    page.locator(".auth-wrapper").get_by_role("button", name="Authorize").click()
    dialog = page.locator(".modal-ux")
    dialog.get_by_role("textbox").fill(key)
    dialog.get_by_role("button", name="Apply credentials").click()
    dialog.get_by_role("button", name="Close").first.click()


def list_models(page: Page) -> int:
    """Try the route in the documentation; return the status of the answer."""
    route = page.locator("#operations-models-list_models")
    if not route.get_by_role("button", name="Execute").is_visible():
        route.locator(".opblock-summary-control").click()
        route.get_by_role("button", name="Try it out").click()
    with page.expect_response("**/models") as answer:
        route.get_by_role("button", name="Execute").click()
    expect(route.locator(".live-responses-table .response-col_status").nth(1)).to_contain_text(str(answer.value.status))
    return answer.value.status
