"""Drive the inspector page in a real browser."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, Error, Locator, Page, expect, sync_playwright

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


def canvas(page: Page, name: str) -> Locator:
    return page.locator(f'canvas[data-name="{name}"]')


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


def run(page: Page) -> tuple[dict[str, Any], dict[str, Any]]:
    """Press Run; return the inputs that were sent to the session, and its answer."""
    with page.expect_response("**/steps") as response:
        page.click("#run")
    sent = json.loads(response.value.request.post_data or "")
    expect(page.locator("#results")).to_have_attribute("aria-busy", "false")
    return sent, response.value.json()
