"""The notebooks: each runs from the first cell to the last, and has no stored outputs."""

import ast
import base64
import json
import tempfile
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def run_cell(source: str, names: dict[str, Any], place: str) -> str:
    """Run a cell, and return what a notebook shows of its last expression; nothing after a semicolon."""
    tree = ast.parse(source, place)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, place, "exec"), names)
    value = None if last is None else eval(compile(ast.Expression(last.value), place, "eval"), names)
    return "" if value is None or source.rstrip().endswith(";") else shown(value)


def shown(value: Any) -> str:
    """Return a value as HTML, as a picture, or as text, as a notebook chooses."""
    if hasattr(value, "_repr_html_") and (html := value._repr_html_()) is not None:
        return f"text/html {html}"
    if hasattr(value, "_repr_png_"):
        return f"image/png {base64.b64encode(value._repr_png_()).decode()}"
    return f"text/plain {value!r}"


@pytest.fixture
def names(tmp_path, monkeypatch):
    """Return the names of a notebook that is run in its directory; a server of its own is ended with it."""
    mpl.use("Agg")
    monkeypatch.chdir(ROOT / "notebooks")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    names: dict[str, Any] = {}
    yield names
    plt.close("all")
    if "server" in names:
        names["server"].kill()
        names["server"].wait()


EXPECTED = {
    "compare": ["text/html", "text/html", "text/html", "text/html", "image/png"],
    "train_and_watch": ["image/png", "text/plain", "text/html", "image/png", "text/html", "text/html"],
}
"""The kinds of outputs that a notebook shows, in order."""


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_from_first_to_last_cell(path, names):
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    results = [run_cell("".join(cell["source"]), names, f"{path.name}[{n}]") for n, cell in enumerate(cells)]
    assert [result.split()[0] for result in results if result] == EXPECTED[path.stem]
    assert names["wrong"]["dnc-copy"][0] == 0 if path.stem == "compare" else names["server"].poll() is not None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_has_no_stored_outputs(path):
    notebook = json.loads(path.read_text())
    stored = [
        cell["id"] for cell in notebook["cells"] if cell.get("outputs") or cell.get("execution_count") is not None
    ]
    assert (stored, notebook["nbformat"]) == ([], 4)


def test_notebooks_are_all_expected():
    assert {path.stem for path in NOTEBOOKS} == EXPECTED.keys()
