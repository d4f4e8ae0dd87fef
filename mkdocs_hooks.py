"""Hooks of mkdocs: equations as MathML, and pages for the files of the checkout to which documents link.

The site asks nothing of other hosts, so it also reads from a disk: equations are MathML, which browsers draw by
themselves, and a link to a file outside of docs/ leads to a page with that file's text.
"""

import json
import re
from pathlib import Path, PurePosixPath
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent

OUTWARD = re.compile(r"\]\(\.\./([^)#]+)(#[^)]*)?\)")
"""A link from a document to a file outside of docs/."""

INWARD = re.compile(r"\[([\w-]+\.md)\]\(\1(#[^)]*)?\)")
"""A link to another document that is called by the name of its file."""

PICTURE = ".png"

NOTEBOOK = ".ipynb"

INFO = re.compile(r"^(\s*```\w+) .*$", re.MULTILINE)
"""The first line of a block of code, with words for the tests behind its language."""

LARGEST_SHOWN = 2**16
"""Bytes of a file that is shown in the page of its folder, at most."""

UNSEARCHED = "---\nsearch: { exclude: true }\n---\n\n"
"""The head of a page that is no result of a search."""

LANGUAGES = {".cfg": "haproxy", ".json": "json", ".py": "python", ".toml": "toml", ".yaml": "yaml", ".yml": "yaml"}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Have fences of the language `math` drawn as equations."""
    fence = {"name": "math", "class": "math", "format": equation}
    config.mdx_configs.setdefault("pymdownx.superfences", {})["custom_fences"] = [fence]
    return config


def equation(source: str, *_: Any, **__: Any) -> str:
    """Return a fence of LaTeX as MathML, a block for each of its lines."""
    blocks = [convert(line, display="block") for line in source.splitlines() if line.strip()]
    return f'<div class="equation">{"".join(blocks)}</div>'


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each file or folder of the checkout to which a document links, and the icon."""
    places = {found[1] for file in files.documentation_pages() for found in OUTWARD.finditer(file.content_string)}
    for place in sorted(places):
        files.append(generated(place, config))
    files.append(File.generated(config, "icon.svg", abs_src_path=str(ROOT / "app/static/icon.svg")))
    return files


def generated(place: str, config: MkDocsConfig) -> File:
    """Return a file or folder of the checkout as a file of the site: a picture as it is, all else as a page."""
    if place.endswith(PICTURE):
        return File.generated(config, path_of(place), abs_src_path=str(ROOT / place))
    return File.generated(config, path_of(place), content=page(place))


def path_of(place: str) -> str:
    """Return the path in the site of a file or folder of the checkout."""
    return f"source/{place.strip('/')}{'' if place.endswith(PICTURE) else '.md'}"


def page(place: str) -> str:
    """Return the page of a file, or of a folder with the files in it."""
    path = ROOT / place
    if path.suffix == NOTEBOOK:
        return UNSEARCHED + cells(path)
    if path.is_file():
        return UNSEARCHED + shown(path, place)
    entries = sorted(path.iterdir())
    listed = "\n".join(f"- `{entry.name}{'/' if entry.is_dir() else ''}`" for entry in entries)
    files = [entry for entry in entries if entry.suffix in LANGUAGES and entry.stat().st_size < LARGEST_SHOWN]
    return "\n\n".join([UNSEARCHED + f"# {place}", listed, *(shown(file, file.name, "##") for file in files)])


def cells(path: Path) -> str:
    """Return the text and the code of a notebook; links to other notebooks lead to their pages."""
    kinds = {"markdown": "{}", "code": "```python\n{}\n```"}
    found = json.loads(path.read_text())["cells"]
    written = [kinds[cell["cell_type"]].format("".join(cell["source"])) for cell in found]
    return "\n\n".join(written).replace(f"{NOTEBOOK})", f"{NOTEBOOK}.md)")


def shown(path: Path, title: str, heading: str = "#") -> str:
    """Return the text of a file as a block of code under a heading."""
    return f"{heading} {title}\n\n````{LANGUAGES.get(path.suffix, 'text')}\n{path.read_text()}````\n"


def on_page_markdown(markdown: str, page: Page, files: Files, **_: Any) -> str:
    """Have links out of docs/ lead to the pages of their files, call documents by their titles, and drop what stands
    behind the language of a block.
    """
    markdown = INWARD.sub(lambda link: f"[{title_of(link[1], files)}]({link[1]}{link[2] or ''})", markdown)
    up = "../" * len(PurePosixPath(page.file.src_uri).parent.parts)
    markdown = OUTWARD.sub(lambda link: f"]({up}{path_of(link[1])}{link[2] or ''})", markdown)
    return INFO.sub(r"\1", markdown)


def title_of(name: str, files: Files) -> str:
    """Return the title of a document, or its name where there is none such: then the link is at fault."""
    file = files.get_file_from_path(name)
    return file.content_string.partition("\n")[0].removeprefix("# ") if file else name
