"""Sessions of API clients on the page, in a real browser: followed, forked beside themselves, and rewound."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.app.browsing import canvas, open_page, size, turn, wait_until_idle
from tests.app.harness import Server


@pytest.fixture(scope="module")
def tab(browser: Browser, server: Server) -> Iterator[Page]:
    with open_page(browser, server.url) as tab:
        yield tab


@pytest.fixture
def page(tab: Page) -> Iterator[Page]:
    with turn(tab) as page:
        yield page


class Client:
    """A session of an API client."""

    def __init__(self, server: Server) -> None:
        self.http = httpx.Client(base_url=server.url)
        self.id = self.open()

    def open(self, **options: Any) -> str:
        return self.http.post("/sessions", json={"model": "dnc-copy", **options}).json()["id"]  # type: ignore[no-any-return]

    def step(self, count: int) -> None:
        inputs = [[(row + column) % 2 for column in range(10)] for row in range(count)]
        self.http.post(f"/sessions/{self.id}/steps", json={"inputs": inputs}).raise_for_status()

    def other(self, session: str) -> Any:
        return self.http.get(f"/sessions/{session}").json()

    @property
    def at(self) -> int:
        return self.other(self.id)["step"]  # type: ignore[no-any-return]


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    client = Client(server)
    yield client
    client.http.close()


def test_session_of_a_client_is_followed(page, client):
    client.step(5)
    page.goto(f"/?session={client.id}")
    expect(page.locator("#provenance-text")).to_contain_text("of dnc-copy, 5 steps, live")
    client.step(60)
    expect(page.locator("#provenance-text")).to_contain_text("65 steps, live")
    expect(page.locator("#place")).to_have_text("step 64")
    page.keyboard.press("Home")
    client.step(1)
    expect(page.locator("#provenance-text")).to_contain_text("66 steps.")
    expect(page.locator("#place")).to_have_text("step 0")
    page.click("#live")
    expect(page.locator("#place")).to_have_text("step 65")
    assert client.at == 66


def test_rewound_session_is_shown_anew(page, client):
    client.step(5)
    page.goto(f"/?session={client.id}")
    expect(page.locator("#provenance-text")).to_contain_text("5 steps, live")
    client.http.post(f"/sessions/{client.id}/rewind", json={"step": 2})
    expect(page.locator("#provenance-text")).to_contain_text("2 steps, live")
    expect(page.locator("#place")).to_have_text("step 1")


def test_session_that_ends_says_so_without_an_error(page, client):
    messages: list[str] = []
    page.once("console", lambda message: messages.append(message.text))
    client.step(5)
    page.goto(f"/?session={client.id}")
    expect(page.locator("#provenance-text")).to_contain_text("5 steps, live")
    client.http.delete(f"/sessions/{client.id}")
    expect(page.locator("#provenance-text")).to_contain_text("is gone: deleted. The session is not followed any more.")
    page.keyboard.press("Home")
    expect(page.locator("#place")).to_have_text("step 0")
    expect(page.locator("#try")).to_be_hidden()
    assert messages == []


def test_session_out_of_reach_is_asked_for_again(browser, server, client):
    client.step(5)
    problem = {"title": "The session is elsewhere", "status": 503, "code": "session_held", "detail": "another has it"}
    with open_page(browser, server.url) as page:
        page.goto(f"/?session={client.id}")
        expect(page.locator("#provenance-text")).to_contain_text("5 steps, live")
        page.route(f"**/sessions/{client.id}?*", lambda route: route.fulfill(status=503, body=json.dumps(problem)))
        expect(page.locator("#provenance-text")).to_contain_text(
            "The session is elsewhere: another has it. Trying again in"
        )
        page.unroute(f"**/sessions/{client.id}?*")
        client.step(1)
        expect(page.locator("#provenance-text")).to_contain_text("6 steps, live")


def test_session_left_by_the_page_lives_on(page, client):
    client.step(5)
    page.goto(f"/?session={client.id}")
    expect(page.locator("#provenance-text")).to_contain_text("5 steps, live")
    page.click("#leave")
    expect(page.locator("#provenance")).to_be_hidden()
    expect(page.locator("#verdict")).to_contain_text(" of ")
    assert client.at == 5


def test_session_that_is_not_there_is_refused(page):
    page.goto("/?session=nothing")
    expect(page.locator("#error")).to_contain_text("nothing")
    expect(page.locator("#verdict")).to_contain_text(" of ")


def open_session(page: Page, client: Client, query: str) -> None:
    """Follow a session, and wait until all of its steps are shown."""
    page.goto(f"/?session={client.id}{query}")
    expect(page.locator("#provenance-text")).to_contain_text(f"{client.at} steps")


def fork(page: Page) -> str:
    """Shut the write gate at the cursor in a branch; return the id of its session."""
    page.click("#try")
    page.select_option("[aria-label='Write gate']", "shut")
    with page.expect_response("**/fork") as answer:
        page.click("text=Fork here")
    expect(page.locator("#branch")).to_be_visible()
    wait_until_idle(page)
    return answer.value.json()["id"]  # type: ignore[no-any-return]


def test_fork_of_a_followed_session_goes_along_with_it(page: Page, client: Client) -> None:
    client.step(12)
    open_session(page, client, "&step=4")
    branch = fork(page)
    expect(page.locator("#branch")).to_contain_text("B: from step 4 on, write gate shut. Outputs differ at")
    assert size(canvas(page, "b.write_weights.0")) == size(canvas(page, "write_weights.0"))
    client.step(45)  # more than the axis of time had room for
    expect(page.locator("#branch")).to_contain_text("of 57 steps")
    expect(page.locator("#provenance-text")).to_contain_text("57 steps")
    assert size(canvas(page, "b.output"))[0] == size(canvas(page, "output"))[0] >= 57
    assert (client.at, client.other(branch)["step"]) == (57, 57)
    page.click("text=Drop the branch")
    expect(canvas(page, "b.output")).to_have_count(0)
    assert client.at == 57


def test_address_opens_the_fork_of_a_forced_session(page: Page, client: Client) -> None:
    client.id = client.open(force={"allocation_gate": [1.0]})
    client.step(12)
    open_session(page, client, "&step=4")
    assert client.other(fork(page))["force"] == {"allocation_gate": [1.0], "write_gate": [0.0]}
    said = page.locator("#branch span").inner_text()
    page.reload()
    expect(page.locator("#branch span")).to_have_text(said)
    expect(canvas(page, "b.output")).to_have_count(1)
    page.go_back()
    expect(page.locator("#branch")).to_be_hidden()
    expect(page.locator("#provenance-text")).to_contain_text("12 steps")


def test_address_of_a_session_opens_what_was_open(page: Page, client: Client) -> None:
    client.step(4)
    open_session(page, client, "&step=2&view=explain,try")
    expect(page.get_by_role("button", name="Fork here")).to_be_visible()
    expect(page.locator("#explain")).to_have_attribute("aria-expanded", "true")
    expect(page.locator("#place")).to_have_text("step 2")


def test_session_of_a_client_is_rewound_after_one_question(page: Page, client: Client) -> None:
    client.step(8)
    open_session(page, client, "&step=3")
    page.click("#rewind")
    expect(page.locator("#consent")).to_contain_text("it has taken 4 steps then, and its client goes on from there")
    page.click("text=Leave it as it is")
    assert client.at == 8
    page.keyboard.press("Backspace")
    page.evaluate('() => ["consent-no", "rewind"].forEach((id) => document.getElementById(id).click())')  # asked again
    page.click("text=Rewind it")
    expect(page.locator("#provenance-text")).to_contain_text("of dnc-copy, 4 steps")
    client.step(3)
    expect(page.locator("#provenance-text")).to_contain_text("of dnc-copy, 7 steps")
    page.keyboard.press("Home")
    page.click("#rewind")
    expect(page.locator("#provenance-text")).to_contain_text("of dnc-copy, 1 step.")
    assert client.at == 1


def test_refused_change_of_a_session_is_said(browser: Browser, server: Server, client: Client) -> None:
    client.step(8)
    with open_page(browser, server.url) as page:
        open_session(page, client, "&step=3")
        page.route(f"**/sessions/{client.id}?*", lambda route: None)  # the page does not see that it ends
        client.http.delete(f"/sessions/{client.id}")
        page.click("#rewind")
        page.click("text=Rewind it")
        expect(page.locator("#error")).to_contain_text("is gone: deleted")
        page.click("#try")
        page.select_option("[aria-label='Write gate']", "shut")
        with page.expect_response("**/fork"):
            page.click("text=Fork here")
        expect(page.locator("#error")).to_contain_text("is gone: deleted")
        wait_until_idle(page)
        expect(page.locator("#branch")).to_be_hidden()
        expect(page.locator("#provenance-text")).to_contain_text("of dnc-copy, 8 steps.")
