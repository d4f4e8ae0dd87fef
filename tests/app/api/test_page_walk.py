"""The page by keys alone, its values as tables, and the work that a frame costs."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.app.browsing import canvas, clear_drawing, hover_cell, open_inspector, open_page, resize, run, turn
from tests.app.harness import Server

COUNT = """() => {
    window.drawn = { calls: 0, pixels: 0 };
    const drawing = CanvasRenderingContext2D.prototype;
    for (const name of ["putImageData", "drawImage", "fillRect", "strokeRect", "fill", "stroke"]) {
        const plain = drawing[name];
        drawing[name] = function (image, ...others) {
            window.drawn.calls += 1;
            window.drawn.pixels += name === "putImageData" ? image.data.length / 4 : 0;
            return plain.call(this, image, ...others);
        };
    }
}"""


@pytest.fixture(scope="module")
def tab(browser: Browser, server: Server) -> Iterator[Page]:
    with open_page(browser, server.url) as tab:
        yield tab


@pytest.fixture
def page(tab: Page) -> Iterator[Page]:
    with turn(tab) as page:
        yield page


def test_arrow_keys_move_in_time_where_no_field_has_focus(page: Page) -> None:
    open_inspector(page, "ntm-copy")
    page.locator("#run").focus()
    for key, step in (("Home", 0), ("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", 37)):
        page.keyboard.press(key)
        expect(page.locator("#place")).to_have_text(f"step {step}")
    page.locator("#seed").focus()
    page.keyboard.press("Home")
    expect(page.locator("#place")).to_have_text("step 37")


def test_space_plays_and_pauses(page: Page) -> None:
    open_inspector(page, "ntm-copy")
    page.keyboard.press("Home")
    page.keyboard.press(" ")
    expect(page.locator("#play")).to_have_text("Pause")
    page.keyboard.press(" ")
    expect(page.locator("#play")).to_have_text("Play")


def test_walked_cell_is_read_out_and_gone_to(page: Page) -> None:
    open_inspector(page, "dnc-copy")
    _, answer = run(page)
    canvas(page, "usage").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowUp", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    read = f"location 1, time 2: {answer['trace']['usage'][2][1]:.3f}"
    expect(page.locator("[aria-live=polite]", has_text=read)).to_be_attached()
    expect(page.locator("#readout")).to_contain_text(read)
    expect(page.locator("#place")).to_have_text("step 2")
    page.keyboard.press("PageDown")
    expect(canvas(page, "allocation_weights.0")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("body")).to_be_focused()


def test_cell_of_the_drawing_is_turned_over_by_space(page: Page) -> None:
    open_inspector(page, "dnc-copy")
    clear_drawing(page, 5)
    canvas(page, "drawing").focus()
    for key in ("ArrowRight", "ArrowDown", " ", "End", " ", " "):
        page.keyboard.press(key)
    sent, _ = run(page)
    assert [(t, row) for t, step in enumerate(sent["inputs"]) for row in range(8) if step[row]] == [(2, 1)]


def test_pictures_of_a_panel_are_one_stop_of_tab(page: Page) -> None:
    open_inspector(page, "dnc-copy")
    stops = page.locator(".panel:has([data-walk])").evaluate_all(
        "all => all.map(one => one.querySelectorAll('[tabindex=\"0\"]').length)"
    )
    assert stops == [1, 1, 1]


def test_table_of_a_picture_is_made_when_asked_for(page: Page) -> None:
    open_inspector(page, "dnc-copy")
    _, answer = run(page)
    assert page.locator("#results table, dialog table").count() == 0
    canvas(page, "usage").focus()
    page.keyboard.press("t")
    rows = page.locator("#numbers-table tbody tr")
    expect(rows).to_have_count(len(answer["outputs"]))
    usage = [f"{value:.3f}" for value in answer["trace"]["usage"][3]]
    assert rows.nth(3).locator("th, td").all_text_contents() == ["time 3", *usage]
    page.keyboard.press("Escape")
    expect(canvas(page, "usage")).to_be_focused()
    expect(rows).to_have_count(0)


def test_table_button_offers_every_picture(page: Page) -> None:
    open_inspector(page, "ntm-copy")
    page.click("#table")
    pictures = page.locator("#results canvas[data-walk]").count()
    expect(page.locator("#numbers-of option")).to_have_count(pictures)
    page.select_option("#numbers-of", label="Memory")
    expect(page.locator("#numbers-table tbody tr")).to_have_count(128)
    page.click("#numbers-close")
    expect(page.locator("#numbers")).to_be_hidden()


@pytest.mark.parametrize("close", ["Escape", "a press elsewhere"])
def test_card_is_closed_by_a_key_and_by_a_press(page: Page, close: str) -> None:
    open_inspector(page, "dnc-copy")
    page.click("#about summary")
    expect(page.locator("#card")).to_be_in_viewport(ratio=1)
    page.locator("#card").click(position={"x": 5, "y": 5})
    expect(page.locator("#card")).to_be_visible()
    if close == "Escape":
        page.locator("#about summary").focus()
        page.keyboard.press("Escape")
    else:
        page.mouse.click(640, 700)
    expect(page.locator("#card")).to_be_hidden()


def test_work_of_a_frame_does_not_grow_with_the_steps(page: Page) -> None:
    work = []
    for length in (5, 80):
        open_inspector(page, "ntm-copy")
        resize(page, "length", length)
        page.keyboard.press("Home")
        page.evaluate(COUNT)
        for _ in range(4):
            page.keyboard.press("ArrowRight")
        hover_cell(page, "output", column=3, row=3)
        hover_cell(page, "read_weights.0", column=4, row=5)
        expect(page.locator("#readout")).to_contain_text("time 4")
        work.append(page.evaluate("() => window.drawn"))
    few, many = work
    assert 0 < few["pixels"] == many["pixels"]
    assert 0 < few["calls"] <= many["calls"] + 5 <= few["calls"] + 10
