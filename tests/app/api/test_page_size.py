"""How the page fits the window, in a real browser."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.app.browsing import open_inspector, open_page, wait_until_idle
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
"""Return by how many pixels the page is higher than the window, the stage too high, and pictures outside their panels."""


@pytest.fixture(scope="module")
def page(browser: Browser, server: Server) -> Iterator[Page]:
    with open_page(browser, server.url) as page:
        page.set_viewport_size({"width": 1280, "height": 800})
        yield page


@pytest.mark.slow
def test_shipped_models_open_on_one_screen(page: Page) -> None:
    open_inspector(page, SHIPPED[-1])
    excess = {name: excess_of(page, name) for name in SHIPPED}
    assert excess == {name: {"page": 0, "player": 0, "panels": 0} for name in SHIPPED}


def excess_of(page: Page, model: str) -> Any:
    page.select_option("#model", model)
    page.wait_for_url(re.compile(rf"model={model}&"))
    wait_until_idle(page)
    return page.evaluate(EXCESS)
