"""The documentation as a site: built strictly, read as files in a real browser."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.app.browsing import open_page, running_browser

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the site."""
    directory = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(directory)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert (built.returncode, built.stderr) == (0, "")
    return directory


@pytest.fixture(scope="module")
def page(site: Path) -> Iterator[Page]:
    with running_browser() as browser, open_page(browser, f"{site.as_uri()}/") as page:
        yield page


def test_site_asks_nothing_of_other_hosts(site):
    loads = re.compile(r"<(?:script|link|img|iframe|video)\b[^>]*\b(?:src|href)=\"?(?:https?:)?//[^>]*>")
    found = {path.name: loads.findall(path.read_text()) for path in site.rglob("*.html")}
    assert len(found) > 50
    assert {name: tags for name, tags in found.items() if tags} == {}


def test_file_outside_of_the_documents_has_a_page(site):
    shown = (site / "source/examples/client.py.html").read_text()
    assert "Stream a sequence with the Python client" in re.sub("<[^>]+>", "", shown)
    assert 'href="source/examples/client.py.html"' in (site / "client.html").read_text()


def test_notebook_is_a_page_of_text_and_code(site):
    text = (site / "source/notebooks/train_and_watch.ipynb.html").read_text()
    assert '<h2 id="watch-a-session">Watch a session' in text
    assert 'href="compare.ipynb.html"' in text
    assert "cell_type" not in text


def test_links_call_documents_by_their_titles(site):
    named = {path.name: re.findall(r">[\w-]+\.md</a>", path.read_text()) for path in site.glob("*.html")}
    assert {name: links for name, links in named.items() if links} == {}
    assert ">Settings</a>" in (site / "errors.html").read_text().split("<article")[1]


def test_pages_read_as_files_with_search_and_equations(page, site):
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(f"{site.as_uri()}/dnc.html")
    assert page.locator("math mfrac").first.bounding_box()["width"] > 50
    widths = page.locator("article img").evaluate_all("images => images.map((image) => image.naturalWidth)")
    assert len(widths) >= 4
    assert min(widths) > 500
    page.click("input.md-search__input")
    page.keyboard.type("idempotency_conflict")
    expect(page.locator(".md-search-result__item").first).to_contain_text("Errors")
    assert [url for url in requests if not url.startswith(("file:", "about:"))] == []


def test_no_page_is_wider_than_a_phone(page, site):
    page.set_viewport_size({"width": 390, "height": 844})
    wide = "() => document.documentElement.scrollWidth > document.documentElement.clientWidth"
    for name in ("index", "dnc", "errors"):
        page.goto(f"{site.as_uri()}/{name}.html")
        assert not page.evaluate(wide), name
    page.goto(f"{site.as_uri()}/notebooks.html")
    scroller = page.locator(".md-typeset__scrollwrap").first
    assert scroller.evaluate("wrap => wrap.scrollWidth <= wrap.clientWidth")
