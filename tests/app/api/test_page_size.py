"""How the page fits the window, in a real browser."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.app.browsing import canvas, open_inspector, open_page, wait_until_idle
from tests.app.harness import CHECKPOINTS, Server

SHIPPED = sorted(path.name for path in CHECKPOINTS.iterdir())

EXCESS = """() => {
    const panels = [...document.querySelectorAll("#stage > .panel")].filter(panel => panel.checkVisibility());
    const [stage, player] = ["stage", "player"].map(id => document.getElementById(id).getBoundingClientRect());
    return {
        page: document.documentElement.scrollHeight - innerHeight,
        player: Math.max(0, stage.bottom - player.top),
        panels: Math.max(...panels.map(panel => panel.scrollHeight - panel.clientHeight)),
    };
}"""
"""Return how many pixels the page is higher than the window, the stage too high, and pictures outside their panels."""


LONDON = "dnc-graph-traversal&map=london-zone-1"


@pytest.fixture(scope="module")
def page(browser: Browser, server: Server) -> Iterator[Page]:
    with open_page(browser, server.url) as page:
        yield page


@pytest.mark.slow
def test_shipped_models_open_on_one_screen(page: Page) -> None:
    page.set_viewport_size({"width": 1280, "height": 800})
    open_inspector(page, SHIPPED[-1])
    excess = {name: excess_of(page, name) for name in SHIPPED}
    assert excess == {name: {"page": 0, "player": 0, "panels": 0} for name in SHIPPED}


def excess_of(page: Page, model: str) -> Any:
    page.select_option("#model", model)
    page.wait_for_url(re.compile(rf"model={model}&"))
    wait_until_idle(page)
    return page.evaluate(EXCESS)


def test_equations_stand_beside_a_map_of_any_size(page: Page) -> None:
    page.set_viewport_size({"width": 1920, "height": 1080})
    open_inspector(page, LONDON)
    page.click("#explain")
    for panels in (4, 3):
        tops = page.locator("#stage > .panel:visible").evaluate_all(
            "all => all.map(one => one.getBoundingClientRect().top)"
        )
        assert tops == [tops[0]] * panels
        assert canvas_height(page, "memory") > 60
        page.get_by_role("button", name="Large").click()


def canvas_height(page: Page, name: str) -> float:
    return canvas(page, name).evaluate("canvas => canvas.clientHeight")  # type: ignore[no-any-return]


def test_phases_too_short_for_their_names_are_marked(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    open_inspector(page, LONDON)
    texts, heights = page.locator(".phases").first.evaluate(
        "({ children }) => [[...children].map(one => one.textContent), [...children].map(one => one.clientHeight)]"
    )
    assert texts == ["listen", *[""] * 6]
    assert min(heights) > 5
    assert page.evaluate("document.documentElement.scrollWidth") == 390
