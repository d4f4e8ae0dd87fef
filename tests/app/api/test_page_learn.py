"""The guided page in a real browser, on the shipped models."""

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from tests.app.browsing import open_page
from tests.app.harness import Server


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    with open_page(browser, server.url) as page:
        yield page


def figure(page: Page, name: str) -> Locator:
    """Return a picture that has come into sight."""
    found = page.locator(f'[data-figure="{name}"]')
    found.scroll_into_view_if_needed()
    return found


def test_every_picture_of_the_guide_is_drawn(page: Page) -> None:
    logged: list[str] = []
    page.on("console", lambda message: logged.append(message.text))
    page.goto("/learn")
    for name in page.locator("[data-figure]").evaluate_all("all => all.map(node => node.dataset.figure)"):
        expect(figure(page, name).locator("canvas, i").first).to_be_visible()
        expect(page.locator("[data-figure] .note")).to_have_count(0)
    assert logged == []


def test_longer_sequence_of_the_guide_is_run_by_both_models(page: Page) -> None:
    page.goto("/learn")
    both = figure(page, "lengths")
    expect(both).to_contain_text("dnc-copy: 0 wrong bits of 160")
    both.locator("input").fill("30")
    expect(both).to_contain_text("lstm-copy:")
    expect(both).to_contain_text("of 240")


def test_picture_whose_model_is_not_served_says_so(page: Page) -> None:
    problem = {
        "title": "There is no such model",
        "status": 404,
        "code": "model_not_found",
        "detail": "no ntm-copy here",
    }
    refuse = json.dumps(problem)

    def answer(route: Route) -> None:
        route.fulfill(status=404, content_type="application/problem+json", body=refuse)

    page.route("**/models/ntm-copy", answer)
    page.goto("/learn")
    expect(figure(page, "shifts")).to_have_text("This picture cannot be shown: no ntm-copy here")
    expect(figure(page, "links").locator("canvas").first).to_be_visible()


def test_cursor_of_a_guided_picture_moves_the_memory(page: Page) -> None:
    page.goto("/learn")
    writing = figure(page, "writing")
    memory = writing.locator('canvas[data-name="memory"]')
    expect(memory).to_be_visible()
    before = memory.evaluate("canvas => canvas.toDataURL()")
    writing.locator('input[type="range"]').fill("8")
    assert memory.evaluate("canvas => canvas.toDataURL()") != before
