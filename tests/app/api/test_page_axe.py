"""The pages by the rules of axe-core: WCAG and good practice, dark and light, on a screen and on a phone."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Browser, Page, expect

from app.access.keys import new_key
from app.stores.sqlite import SqliteKeyStore
from tests.app.browsing import open_drawing, open_inspector, open_page, turn, wait_until_idle
from tests.app.graphs import make_graph_checkpoint, rnn
from tests.app.harness import Server, running_server

WIDTHS = (1280, 390)

BARE = """() => {
    const areLetters = { ignoreUnicode: true, ignoreLength: true, boldValue: 700, boldTextPt: 14, largeTextPt: 18 };
    const contrastRatio = { normal: { expected: 4.5 }, large: { expected: 3 } };
    axe.configure({ checks: [{ id: "color-contrast", options: { ...areLetters, contrastRatio } }] });
    for (const node of document.querySelectorAll("body *")) {
        const { pointerEvents, position } = getComputedStyle(node);
        const liesOver = pointerEvents === "none" && position === "absolute" && !node.textContent.trim();
        if (liesOver) node.style.visibility = "hidden";
    }
}"""
"""Has axe-core judge texts of one letter too, and those below arcs and lines: it skips what any element lies over."""

FAULTS = """async options => {
    const { violations, incomplete } = await axe.run(options);
    const undecided = incomplete.filter(({ id }) => id !== "color-contrast");
    return [...violations, ...undecided].flatMap(({ id, nodes }) => nodes.map(({ target }) => [id, target.join(" ")]));
}"""
"""Returns each element that breaks a rule: the rule, and a selector."""

SPEECH = """
[inputs]
audio = {range = [-1, 1]}

[step]
sampling_rate = 16000
hop = 16
"""


@pytest.fixture(scope="module")
def tab(browser: Browser, server: Server) -> Iterator[Page]:
    with open_page(browser, server.url) as tab:
        yield tab


@pytest.fixture
def page(tab: Page) -> Iterator[Page]:
    tab.set_viewport_size({"width": WIDTHS[0], "height": 800})
    with turn(tab) as page:
        yield page


def faults(page: Page) -> list[Any]:
    """Return what axe-core finds on the page as it is: of colours in both schemes, of all else in one."""
    page.evaluate(AXE_SCRIPT)
    page.evaluate(BARE)
    found = []
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        for scheme, options in (("dark", {}), ("light", {"runOnly": ["color-contrast"]})):
            page.emulate_media(color_scheme=scheme)
            found += [(scheme, width, *fault) for fault in page.evaluate(FAULTS, options)]
    return found


def open_first(page: Page) -> None:
    page.goto("/")
    expect(page.locator("#verdict")).not_to_be_empty()
    wait_until_idle(page)
    page.click("#share summary")


def open_drawn(page: Page) -> None:
    open_inspector(page, "dnc-copy")
    open_drawing(page)
    page.click("#about summary")


def open_equations(page: Page) -> None:
    open_inspector(page, "dnc-copy&step=8")
    page.click("#explain")
    page.click("text=Formulas")


def open_branch(page: Page) -> None:
    open_inspector(page, "dnc-copy&step=8")
    page.click("#try")
    page.select_option("[aria-label='Write gate']", "shut")
    page.click("text=Fork here")
    expect(page.locator("#branch")).to_be_visible()
    wait_until_idle(page)


def open_table(page: Page) -> None:
    open_inspector(page, "ntm-copy")
    page.click("#table")
    expect(page.locator("#numbers-table tbody tr").first).to_be_visible()


def open_guide(page: Page) -> None:
    page.goto("/learn")
    for figure in page.locator("[data-figure]").all():
        figure.scroll_into_view_if_needed()
        expect(figure.locator("canvas, i").first).to_be_visible()


SIGHTS: dict[str, Callable[[Page], None]] = {
    "first": open_first,
    "drawing": open_drawn,
    "london": lambda page: open_inspector(page, "dnc-graph-traversal&map=london-zone-1&step=0"),
    "graph": lambda page: open_inspector(page, "dnc-graph-traversal&map=random"),
    "story": lambda page: open_inspector(page, "dnc-babi"),
    "equations": open_equations,
    "branch": open_branch,
    "table": open_table,
    "guide": open_guide,
}


@pytest.mark.parametrize("sight", SIGHTS)
def test_axe_finds_no_fault(page: Page, sight: str) -> None:
    SIGHTS[sight](page)
    assert faults(page) == []


def test_axe_finds_no_fault_with_keys_and_curves(browser: Browser, tmp_path: Path) -> None:
    make_graph_checkpoint(
        tmp_path / "checkpoints" / "speech", tmp_path / "speech", rnn({"audio": 16}, {"speech": 1}), SPEECH
    )
    key, token = new_key()
    SqliteKeyStore(tmp_path / "data").add(key)
    server = running_server(data=tmp_path / "data", checkpoints=tmp_path / "checkpoints")
    with server as running, open_page(browser, running.url) as page:
        for path in ("/", "/learn"):
            page.goto(path)
            expect(page.locator("#key-error")).to_contain_text("with a key only")
            assert faults(page) == []
        page.fill("#key", token)
        page.click("#use-key")
        expect(page.locator("#key-form")).to_be_hidden()
        open_inspector(page, "speech")
        expect(page.locator("#plots svg").first).to_be_visible()
        assert faults(page) == []


def test_axe_sees_faint_text_below_the_arcs(page: Page) -> None:
    open_inspector(page, "dnc-copy")
    page.evaluate("document.documentElement.style.setProperty('--quiet', '#8888')")
    assert any(rule == "color-contrast" and target.endswith("figcaption") for *_, rule, target in faults(page))
