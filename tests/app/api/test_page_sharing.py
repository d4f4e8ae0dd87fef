"""Sharing what the page shows, in a real browser."""

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, WebSocketRoute, expect

from tests.app.browsing import canvas, open_page, saved, turn, wait_until_idle
from tests.app.harness import Server, running_server

STEPS = 42


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, few: Path) -> Iterator[Server]:
    with running_server(data=tmp_path_factory.mktemp("sharing") / "data", checkpoints=few) as server:
        yield server


@pytest.fixture(scope="module")
def tab(browser: Browser, server: Server) -> Iterator[Page]:
    with open_page(browser, server.url) as tab:
        yield tab


@pytest.fixture
def page(tab: Page) -> Iterator[Page]:
    with turn(tab) as page:
        yield page


def open_inspector(page: Page, model: str) -> None:
    """Open the page with a sample of 20 vectors, and wait until its run is judged."""
    page.goto(f"/?model={model}&seed=3&length=20")
    expect(page.locator("#verdict")).to_contain_text(" of ")


def pixels(page: Page, name: str) -> str:
    return canvas(page, name).evaluate("canvas => canvas.toDataURL()")  # type: ignore[no-any-return]


def test_address_opened_again_shows_the_same_step(page):
    open_inspector(page, "dnc-copy")
    page.keyboard.press("End")
    expect(page).to_have_url(re.compile(rf"\?model=dnc-copy&seed=3&step={STEPS - 1}&length=20$"))
    shown, memory = pixels(page, "input"), pixels(page, "now-read")
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    expect(page.locator("#place")).to_have_text(f"step {STEPS - 1}")
    assert (pixels(page, "input"), pixels(page, "now-read")) == (shown, memory)


def test_address_holds_what_was_drawn(page):
    open_inspector(page, "dnc-copy")
    page.click("#edit")
    canvas(page, "drawing").click(position={"x": 5, "y": 5})
    page.click("#run")
    expect(page).to_have_url(re.compile(r"&drawn=20\.8\.0\.[\w-]+&step=22&"))
    shown, address = pixels(page, "input"), page.url
    page.goto("about:blank")
    page.goto(address)
    expect(page.locator("#verdict")).to_contain_text(" of ")
    assert pixels(page, "input") == shown


def test_back_returns_to_the_sample_before(page):
    open_inspector(page, "dnc-copy")
    first = pixels(page, "input")
    page.fill("#settings input", "7")
    page.press("#settings input", "Tab")
    expect(canvas(page, "input")).to_have_attribute("width", "16")
    page.go_back()
    expect(canvas(page, "input")).to_have_attribute("width", f"{STEPS}")
    wait_until_idle(page)
    assert pixels(page, "input") == first
    page.go_forward()
    expect(canvas(page, "input")).to_have_attribute("width", "16")


def test_address_opens_what_was_open(page):
    open_inspector(page, "dnc-copy")
    page.click("#about summary")
    expect(page).to_have_url(re.compile("view=about"))
    page.reload()
    expect(page.locator("#card")).to_be_visible()


def test_address_opens_what_needs_a_run(page):
    open_inspector(page, "dnc-copy")
    page.click("#explain")
    page.click("#try")
    expect(page).to_have_url(re.compile("view=explain%2Ctry"))
    page.reload()
    expect(page.get_by_role("button", name="Fork here")).to_be_visible()
    expect(page.locator("#explain")).to_have_attribute("aria-expanded", "true")


def test_address_that_cannot_be_read_says_so(page):
    page.goto("/?model=dnc-copy&drawn=20.9.0.AAAA")
    expect(page.locator("#error")).to_contain_text("Expected vectors of 8 numbers, got vectors of 9")
    expect(page.locator("#verdict")).not_to_be_empty()


def test_drawing_too_long_for_the_address_is_left_out(page):
    open_inspector(page, "dnc-copy")
    vectors = "Array.from({length: 2000}, () => [0, 1, 1, 0, 1, 0, 1, 1])"
    texts = f"import('./static/pattern.js').then(({{textOf}}) => [textOf({{}}, {vectors}), textOf({{}}, [[1, 0.5]])])"
    assert page.evaluate(texts) == [None, "1.1.1.AQAAAD8"]


def test_picture_has_two_pixels_for_one(page, tmp_path):
    open_inspector(page, "dnc-copy")
    path = saved(page, "Picture", tmp_path)
    width = page.locator("#stage").evaluate("stage => stage.getBoundingClientRect().width")
    assert path.name == "dnc-copy-seed-3.png"
    assert int.from_bytes(path.read_bytes()[16:20]) == int(2 * (width + 24))


def test_figure_has_text_and_images_on_white(page, tmp_path):
    page.emulate_media(color_scheme="dark")
    open_inspector(page, "dnc-copy")
    text = saved(page, "Figure", tmp_path).read_text()
    page.emulate_media(color_scheme="light")
    assert re.search(r"<rect x=\"0\" y=\"0\" [^>]*fill=\"rgb\(255, 255, 255\)\"/>", text)
    assert all(f">{word}</text>" in text for word in ("Input", "listen", "time"))
    assert "dnc-copy, seed 3, length 20, 32 locations; time 22 of 42 steps. 0 wrong bits of 160</text>" in text
    assert text.count("<image ") == page.locator("#stage canvas").count()


def test_table_has_a_row_for_each_step(page, tmp_path):
    open_inspector(page, "dnc-copy")
    names, *rows = csv.reader(saved(page, "Table", tmp_path).read_text().splitlines())
    assert names[:3] == ["time", "phase", "input 0"]
    assert names.count("write_weights 31") == 1
    assert [row[0] for row in rows] == [f"{step}" for step in range(STEPS)]
    assert rows[0][names.index("target 0")] == ""
    assert {rows[-1][names.index(f"target {bit}")] for bit in range(8)} <= {"0", "1"}


def test_recording_is_the_one_of_the_server(page, server, tmp_path):
    open_inspector(page, "dnc-copy")
    with httpx.Client(base_url=server.url) as http:
        [session] = [one["id"] for one in http.get("/sessions").json() if one["step"] == STEPS][:1]
        theirs = http.get(f"/sessions/{session}/recording?trace=usage,read_weights").text.splitlines()
    ours = saved(page, "Recording", tmp_path).read_text().splitlines()
    for mine, other in zip(map(json.loads, ours), map(json.loads, theirs), strict=True):
        assert [mine[name] for name in ("step", "inputs", "outputs")] == [
            other[name] for name in ("step", "inputs", "outputs")
        ]
        assert {name: mine["trace"][name] for name in other["trace"]} == other["trace"]


def test_recording_from_a_file_is_shown_without_a_session(page, tmp_path):
    open_inspector(page, "dnc-copy")
    page.keyboard.press("End")
    path = saved(page, "Recording", tmp_path)
    shown = {name: pixels(page, name) for name in ("output", "usage", "link.0")}
    page.goto("/?model=ntm-copy")
    expect(page.locator("#verdict")).not_to_be_empty()
    opened: list[str] = []
    page.on("request", lambda request: opened.append(request.url) if request.method == "POST" else None)
    page.set_input_files("#recording-file", path)
    expect(page.locator("#provenance-text")).to_have_text(
        "A recording of dnc-copy, steps 1 to 42, from dnc-copy-seed-3.jsonl. It cannot be stepped on."
    )
    expect(page.locator("#step")).to_be_disabled()
    page.keyboard.press("End")
    assert {name: pixels(page, name) for name in shown} == shown
    assert opened == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("hello", "Expected a line for each step"),
        ('{"step": 1, "inputs": [1], "outputs": [0]}', "Expected a recording of a model that is served here"),
        ("", "got no step"),
    ],
)
def test_file_that_is_no_recording_is_refused(page, content, said):
    open_inspector(page, "dnc-copy")
    page.set_input_files("#recording-file", {"name": "a.jsonl", "mimeType": "text/plain", "buffer": content.encode()})
    expect(page.locator("#error")).to_contain_text(said)
    expect(page.locator("#verdict")).to_contain_text(" of ")


def test_run_goes_on_after_the_connection_is_lost(browser, server):
    with open_page(browser, server.url) as page:
        sockets: list[WebSocketRoute] = []

        def cut(route: WebSocketRoute) -> None:
            sockets.append(route)
            other = route.connect_to_server()
            if len(sockets) == 1:  # the server takes the steps, and its answer is lost
                other.on_message(lambda message: route.send(message) if b"session" in message[:20] else route.close())

        page.route_web_socket("**/stream", cut)
        open_inspector(page, "dnc-copy")
        expect(page.locator("#verdict")).to_have_text(re.compile("^0 wrong bits of "))
        assert len(sockets) == 2


def test_busy_server_is_asked_again(browser, server):
    with open_page(browser, server.url) as page:
        answers: list[Any] = []

        def answer(route: Any) -> None:
            answers.append(route.request.headers.get("idempotency-key"))
            if len(answers) > 1:
                return route.continue_()
            body = json.dumps({"title": "The server is full", "status": 503, "detail": "try again"})
            return route.fulfill(status=503, headers={"Retry-After": "1"}, body=body)

        page.route("**/sessions", answer)
        page.goto("/?model=dnc-copy")
        expect(page.locator("#waiting")).to_have_text("The server is full. Trying again in 1 s.")
        expect(page.locator("#verdict")).to_have_text(re.compile("^0 wrong bits of "))
        assert len(answers) == 2
        assert answers[0] == answers[1]
