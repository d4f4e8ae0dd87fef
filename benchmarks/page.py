"""Measure the inspector page in Chromium: the time of its frames, of a run, and until the first picture.

Usage: python -m benchmarks.page http://127.0.0.1:8000, the address of a server of the shipped models that runs.
"""

import argparse
import shutil
import statistics
import urllib.parse
from collections.abc import Callable

from playwright.sync_api import Page, sync_playwright

FRAMES_MS = 5000
"""How long frames are watched."""

WATCH = """() => {
    window.frames_ms = [];
    let last;
    const frame = now => {
        if (last !== undefined) window.frames_ms.push(now - last);
        last = now;
        window.watching = requestAnimationFrame(frame);
    };
    window.watching = requestAnimationFrame(frame);
}"""

RUN = """() => new Promise(done => {
    const [results, start] = [document.getElementById("results"), performance.now()];
    const look = () => results.ariaBusy === "true" ? requestAnimationFrame(look) : done(performance.now() - start);
    document.getElementById("run").click();
    requestAnimationFrame(look);
})"""

FIRST = """() => new Promise(done => {
    const isShown = () => document.querySelector("#results:not([hidden])[aria-busy=false] canvas");
    const look = () => isShown() ? done(performance.now()) : requestAnimationFrame(look);
    look();
})"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the inspector page in Chromium.")
    parser.add_argument("url", help="address of a server of the shipped models")
    url = parser.parse_args().url
    with sync_playwright() as playwright:
        flags = ["--headless", "--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        page = browser.new_page(base_url=url, viewport={"width": 1280, "height": 800})
        measure(page)
        browser.close()


def measure(page: Page) -> None:
    """Print each measurement on a line: the setting, the median and the 95th percentile."""
    firsts = [open_model(page, "ntm-copy") for _ in range(5)]
    report("first picture of ntm-copy", firsts)
    resize(page, length=99)
    report("run of 200 steps of ntm-copy", [page.evaluate(RUN) for _ in range(5)])
    report("frames while playing 200 steps of ntm-copy, 128 locations", frames(page, lambda: play(page)))
    open_model(page, "dnc-copy")
    resize(page, length=99)
    page.click("#explain")
    for level in ("Values", "Formulas"):
        page.get_by_role("radio", name=level).check()
        page.locator("#position").fill("0")
        report(f"frames while playing 200 steps of dnc-copy, equations: {level}", frames(page, lambda: play(page)))
    open_model(page, "dnc-graph-traversal", map="london", slots=812, step=0)
    report("frames while playing London, 812 locations", frames(page, lambda: play(page)))
    open_model(page, "dnc-repeat-copy")
    resize(page, length=30, repeats=21)
    title = page.locator('canvas[data-name="output"]').get_attribute("aria-label")
    report(f"frames while hovering; {title}", frames(page, lambda: hover(page)))


def report(setting: str, milliseconds: list[float]) -> None:
    ordered = sorted(milliseconds)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))]
    print(f"{setting}: median {statistics.median(ordered):.1f} ms, p95 {p95:.1f} ms, of {len(ordered)}", flush=True)


def open_model(page: Page, name: str, **place: str | int) -> float:
    """Open the page at a place, as its address has it; return the milliseconds until its first picture."""
    page.goto(f"/?{urllib.parse.urlencode({'model': name, **place})}")
    return float(page.evaluate(FIRST))


def resize(page: Page, **sizes: int) -> None:
    """Choose sizes of the sample, each of which draws another one and runs it."""
    for name, value in sizes.items():
        page.fill(f"#{name}", f"{value}")
        page.locator(f"#{name}").blur()
        page.wait_for_timeout(300)
        page.wait_for_selector("#results[aria-busy=false]")
    page.wait_for_timeout(500)


def frames(page: Page, act: Callable[[], None]) -> list[float]:
    """Return the milliseconds from frame to frame while something is done."""
    page.evaluate(WATCH)
    act()
    watched = page.evaluate("() => (cancelAnimationFrame(window.watching), window.frames_ms)")
    return [float(milliseconds) for milliseconds in watched]


def play(page: Page) -> None:
    page.click("#play")
    page.wait_for_timeout(FRAMES_MS)
    page.click("#play")


def hover(page: Page) -> None:
    """Move to and fro over all steps of the output."""
    box = page.locator('canvas[data-name="output"]').bounding_box()
    assert box, "the page shows no output"
    for move in range(400):
        x = abs(move % 200 - 100) / 100
        page.mouse.move(box["x"] + 2 + x * (box["width"] - 4), box["y"] + (move * 7 % 100) / 100 * box["height"])


if __name__ == "__main__":
    main()
