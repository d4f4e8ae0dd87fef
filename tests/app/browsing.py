"""Drive the inspector page in a real browser."""

import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from playwright.sync_api import Browser, Error, Locator, Page, WebSocket, expect, sync_playwright

FLAGS = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--headless",
    "--no-first-run",
    "--no-sandbox",
]
TIMEOUT_MS = 20_000


@contextmanager
def running_browser(*flags: str) -> Iterator[Browser]:
    """Run Chromium. flags: more of them."""
    chromium = shutil.which("chromium")
    assert chromium, "these tests drive a browser: put `chromium` on the PATH (apt-get install chromium)"
    expect.set_options(timeout=TIMEOUT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=[*FLAGS, *flags])
        yield browser
        browser.close()


@contextmanager
def open_page(browser: Browser, url: str) -> Iterator[Page]:
    """Open a page; check at the end that no script on it has failed."""
    page = browser.new_page(base_url=url)
    page.set_default_timeout(TIMEOUT_MS)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    page.close()
    assert errors == []


@contextmanager
def turn(tab: Page) -> Iterator[Page]:
    """Use a tab for one of several tests, which costs less than a page of its own; check that no script has failed.

    A test that sets something of the page itself, such as a listener, a clock or a size, opens a page of its own.
    """
    errors: list[str] = []

    def failed(error: Error) -> None:
        errors.append(str(error))

    tab.on("pageerror", failed)
    tab.mouse.move(0, 0)
    yield tab
    tab.goto("about:blank")
    tab.evaluate("() => {}")  # what the page before has reported arrives first
    tab.remove_listener("pageerror", failed)
    assert errors == []


def open_inspector(page: Page, model: str) -> None:
    """Open the page, and wait for the run that it starts by itself."""
    page.goto(f"/?model={model}")
    expect(page.locator("#verdict")).not_to_be_empty()
    wait_until_idle(page)


def open_drawing(page: Page) -> None:
    """Show what is drawn, where it is hidden."""
    if page.locator("#sequence").is_hidden():
        page.click("#edit")


def canvas(page: Page, name: str) -> Locator:
    return page.locator(f'canvas[data-name="{name}"]')


def draw(page: Page, name: str, column: int, row: int) -> None:
    """Press a cell of what is drawn."""
    open_drawing(page)
    canvas(page, name).click(position=cell_center(canvas(page, name), column, row))


def hover_cell(page: Page, name: str, column: int, row: int) -> None:
    target = canvas(page, name)
    target.scroll_into_view_if_needed()
    target.hover(position=cell_center(target, column, row))


def cell_center(target: Locator, column: int, row: int) -> Any:
    box = target.bounding_box()
    assert box
    columns, rows = size(target)
    return {"x": (column + 0.5) / columns * box["width"], "y": (row + 0.5) / rows * box["height"]}


def size(target: Locator) -> tuple[int, int]:
    """Return the numbers of columns and rows of a heat map, whose canvas has a pixel for each value."""
    columns, rows = target.evaluate("canvas => [canvas.width, canvas.height]")
    return columns, rows


class Frames:
    """The frames of msgpack that a page sends over its WebSockets, and the answers to them, from now on."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.sent: dict[int, dict[str, Any]] = {}
        self.results: list[dict[str, Any]] = []
        page.on("websocket", self._watch)

    def _watch(self, socket: WebSocket) -> None:
        socket.on("framesent", lambda frame: self._send(decoded(frame)))
        socket.on("framereceived", lambda frame: self._take(decoded(frame)))

    def _send(self, frame: dict[str, Any]) -> None:
        self.sent[frame["seq"]] = frame  # one that was refused is sent again, in pieces

    def _take(self, answer: dict[str, Any]) -> None:
        if answer["type"] == "result":
            self.results.append(answer)

    def finish(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the inputs of all frames, and the answers to them, each as those of one; watch no more."""
        deadline = time.monotonic() + TIMEOUT_MS / 1000
        while not self.results or self.results[-1]["seq"] < max(self.sent):
            assert time.monotonic() < deadline, f"{len(self.sent)} frames were sent, {len(self.results)} answered"
            self.page.wait_for_timeout(10)
        wait_until_idle(self.page)
        self.page.remove_listener("websocket", self._watch)
        trace = {name: joined(answer["trace"][name] for answer in self.results) for name in self.results[0]["trace"]}
        outputs = joined(answer["outputs"] for answer in self.results)
        return {"inputs": joined(frame["inputs"] for frame in self.sent.values())}, {"outputs": outputs, "trace": trace}


def joined(lists: Iterable[list[Any]]) -> list[Any]:
    return [item for part in lists for item in part]


def decoded(frame: bytes | str) -> dict[str, Any]:
    """Return what a frame of msgpack says, its arrays as nested lists."""
    assert isinstance(frame, bytes)
    return {name: nested(value) for name, value in msgpack.unpackb(frame).items()}


def nested(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if value.keys() == {"shape", "data"}:
        return np.frombuffer(value["data"], "<f4").reshape(value["shape"]).tolist()
    return {name: nested(part) for name, part in value.items()}


def run(page: Page) -> tuple[dict[str, Any], dict[str, Any]]:
    """Press Run; return the inputs that were sent to the session, and its answer."""
    frames = Frames(page)
    page.click("#run")
    return frames.finish()


def resize(page: Page, name: str, value: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Choose a size of the sample; return the inputs of the new one, and the answer."""
    frames = Frames(page)
    page.fill(f"#{name}", f"{value}")
    page.locator(f"#{name}").blur()
    return frames.finish()


def clear_drawing(page: Page, count: int, name: str = "length") -> None:
    """Begin to draw this many vectors or items, all empty."""
    resize(page, name, count)
    open_drawing(page)
    page.click("#clear")


def saved(page: Page, item: str, directory: Path) -> Path:
    """Save what an item of the menu "Share" gives; return the file, in a directory."""
    page.click("#share summary")
    with page.expect_download() as download:
        page.click(f"#share button:has-text('{item}')")
    page.keyboard.press("Escape")
    path = directory / download.value.suggested_filename
    download.value.save_as(path)
    return path


def wait_until_idle(page: Page) -> None:
    """Wait until the run that was asked for is shown."""
    expect(page.locator("#results")).to_have_attribute("aria-busy", "false")
