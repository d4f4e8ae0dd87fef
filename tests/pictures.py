"""Draw the pictures of the documents: the inspector in a real browser, on the shipped models. See scripts/pictures."""

import io
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, ViewportSize, expect

from tests.app.browsing import open_page, running_browser
from tests.app.harness import ROOT, running_server

SIZE = ViewportSize(width=1280, height=800)

PLAY = "/?model=dnc-graph-traversal&seed=0"
"""What the moving picture plays: a route through a map, answered hop by hop."""

FRAME_MS, LAST_MS = 300, 2500
COLOURS = 48
STRIDE = 3
"""Steps from frame to frame while the map is heard; the answers are shown step by step."""

ANSWERS = 12
"""The last steps, in which it answers."""

WIDTH = 800
"""Of the moving picture, in pixels."""


def main() -> None:
    docs = ROOT / "docs"
    with tempfile.TemporaryDirectory() as data, running_server(data=Path(data)) as server, running_browser() as browser:
        draw(browser, server.url, "/?model=dnc-copy&seed=0&step=24", docs / "inspector.png")
        draw_branches(browser, server.url, docs / "what-if.png")
        draw_play(browser, server.url, docs / "inspector.gif")
        save_figure(browser, server.url, "/?model=dnc-copy&seed=0&length=10&step=16", docs / "dnc.svg")
        save_figure(browser, server.url, "/?model=ntm-copy&seed=0&length=10&slots=16&step=16", docs / "ntm.svg")


def draw(browser: Browser, url: str, address: str, path: Path) -> None:
    with open_page(browser, url) as page:
        show(page, address)
        page.screenshot(path=path)


def draw_branches(browser: Browser, url: str, path: Path) -> None:
    """Draw a run of dnc-copy beside one whose write gate is shut from step 8 on."""
    with open_page(browser, url) as page:
        show(page, "/?model=dnc-copy&seed=0&step=8")
        page.click("#try")
        page.locator("#what-if select").first.select_option(label="shut")
        page.get_by_role("button", name="Fork here").click()
        expect(page.locator("#verdict")).to_contain_text("B:")
        page.screenshot(path=path)


def draw_play(browser: Browser, url: str, path: Path) -> None:
    """Draw every step of a run as a moving picture."""
    with open_page(browser, url) as page:
        show(page, PLAY)
        page.keyboard.press("Home")
        steps = int(page.locator("#position").get_attribute("max") or 0)
        frames = []
        for step in range(steps):
            if step % STRIDE == 0 or step > steps - ANSWERS:
                frames.append(frame(page))
            page.keyboard.press("ArrowRight")
    times = [FRAME_MS] * (len(frames) - 1) + [LAST_MS]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=times, loop=0, optimize=True)


def save_figure(browser: Browser, url: str, address: str, path: Path) -> None:
    """Save the figure for a paper of a run."""
    with open_page(browser, url) as page:
        show(page, address)
        page.click("#share summary")
        with page.expect_download() as download:
            page.click("#share button:has-text('Figure for a paper')")
        download.value.save_as(path)


def show(page: Page, address: str) -> None:
    """Open an address, and wait for the run that it starts."""
    page.set_viewport_size(SIZE)
    page.goto(address)
    expect(page.locator("#results")).to_have_attribute("aria-busy", "false")
    expect(page.locator("#verdict")).not_to_be_empty()
    page.mouse.move(0, 0)


def frame(page: Page) -> Image.Image:
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    small = picture.resize((WIDTH, WIDTH * SIZE["height"] // SIZE["width"]), Image.Resampling.LANCZOS)
    return small.quantize(COLOURS, dither=Image.Dither.NONE)


if __name__ == "__main__":
    main()
