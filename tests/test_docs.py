"""Documentation compared with the code: every setting, route, error, metric and command is in it, and no other."""

import ast
import dataclasses
import functools
import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path
from typing import get_args

import pytest

from app.access.keys import SCOPES, KeyLimits
from app.errors import EngramError
from app.main import create_app
from app.metrics import Metrics
from app.settings import Settings
from benchmarks.isolation import SITUATIONS
from models import addressing
from models.cells import CELLS
from models.manifest import GraphForm
from models.registry import MODELS
from tests.commands import commands, names
from training.graphs.spec import OPTIONS, SECTIONS, About, StepFacts
from training.optimizers import OptimizerConfig
from training.preset import LISTS, TABLES, TrainingConfig, preset_names
from training.tasks import TASKS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
ROOMS = ("app", "benchmarks", "client", "engram", "examples", "kernels", "models", "scripts", "training")


def first_cells(document: str, heading: str = "") -> list[list[str]]:
    """Return the rows of the tables after a heading of a document, their cells without backticks."""
    text = (DOCS / document).read_text()
    rows = [
        line.strip("| ").split(" | ") for line in text[text.index(heading) :].splitlines() if line.startswith("| `")
    ]
    return [[cell.replace("`", "").strip() for cell in row] for row in rows]


def subclasses(cls: type[EngramError]) -> list[type[EngramError]]:
    return [found for child in cls.__subclasses__() for found in [child, *subclasses(child)]]


def test_settings_page_is_the_settings():
    described = [tuple(row) for row in first_cells("settings.md")]
    assert described == [
        (name, str(field.default), str(field.description)) for name, field in Settings.model_fields.items()
    ]


def test_api_page_has_every_route(tmp_path):
    app = create_app(Settings(checkpoints=ROOT / "checkpoints", data=tmp_path, store="memory"))
    offered = {f"{method.upper()} {path}" for path, methods in app.openapi()["paths"].items() for method in methods}
    headings = re.findall(r"^### (.*)$", (DOCS / "api.md").read_text(), re.M)
    listed = {route for heading in headings for route in re.findall(r"`([A-Z]+ \S+)`", heading)}
    assert {route.replace("{name}", "{name}") for route in listed if not route.startswith("WS")} == offered
    assert {route for route in listed if route.startswith("WS")} == {
        "WS /stream",
        "WS /streams",
        "WS /sessions/{session}/stream",
    }


def test_errors_page_has_every_error_with_status_and_remedy():
    rows = first_cells("errors.md")
    listed = {row[0]: int(row[1]) for row in rows}
    raised = {error.code: error.status for error in subclasses(EngramError)}
    assert listed == raised
    assert [row for row in rows if len(row) != 4 or not all(row)] == []


@pytest.mark.parametrize("page", ["errors.md", "metrics.md"])
def test_page_has_each_name_once(page):
    names = [row[0] for row in first_cells(page)]
    assert [name for name in names if names.count(name) > 1] == []


def test_error_tree_is_drawn_as_it_is():
    drawing = str(sys.modules["app.errors"].__doc__)
    drawn = re.findall(r"^ *(?:\|   |    )?(?:\|--|`--) (\w+)", drawing, re.M)
    assert sorted(drawn) == sorted(error.__name__ for error in subclasses(EngramError))


def test_metrics_page_has_every_metric():
    listed = {row[0].removesuffix("_total"): row[1] for row in first_cells("metrics.md")}
    assert listed == {metric.name: metric.type for metric in Metrics().registry.collect()}


def test_commands_page_has_every_command_and_option():
    text = (DOCS / "commands.md").read_text()
    of_settings = {f"--{name.replace('_', '-')}" for name in Settings.model_fields} | {"--config"}
    for name, command in commands():
        section = text[text.index(f"## `{name}") :].split("\n## ")[0]
        options = {option for option in names(command) if option.startswith("--")}
        known = of_settings if name in ("engram serve", "engram doctor") else set()
        missing = {option for option in options - known if option not in section}
        assert not missing, f"{name}: {missing}"


def test_isolation_page_has_every_situation_and_every_shipped_model():
    rows = first_cells("isolation.md")
    described = [tuple(row) for row in rows if len(row) == 2]
    assert described == [(situation.name, situation.about) for situation in SITUATIONS]
    shipped = sorted(path.parent.name for path in ROOT.glob("checkpoints/*/manifest.json"))
    reported = [row[0] for row in rows if len(row) > 2 and row[0] in shipped]
    assert reported == shipped * 2, "engram isolate --all --markdown prints the tables"


def test_commands_page_has_every_preset():
    text = (DOCS / "commands.md").read_text()
    assert all(f"`{name}`" in text for name in preset_names())


def test_presets_page_has_every_task_and_every_setting():
    text = (DOCS / "presets.md").read_text()
    settings = {field.name for config in (TrainingConfig, OptimizerConfig) for field in dataclasses.fields(config)}
    assert {name for name in (*TASKS, *settings, *TABLES, *LISTS) if not re.search(rf"[`\[]{name}[`\]]", text)} == set()


def test_import_page_has_every_key_of_a_specification():
    text = (DOCS / "import.md").read_text()
    keys = {key for options in OPTIONS.values() for key in options} | {*SECTIONS, "form", "sample"}
    facts = {field.name for config in (StepFacts, About) for field in dataclasses.fields(config)}
    assert {name for name in keys | facts if not re.search(rf"[`\[]{name}[`\]]", text)} == set()
    assert {f"`{form}`" for form in get_args(GraphForm) if f"| `{form}` |" not in text} == set()


def test_import_page_shows_the_specification_of_the_example():
    example = (ROOT / "examples" / "graphs" / "silero.toml").read_text()
    assert "\n".join(line for line in example.splitlines() if line[:1] != "#") in (DOCS / "import.md").read_text()


@pytest.mark.parametrize("command", ["engram", *(name for name, _ in commands())])
def test_help_of_every_command_answers(command):
    words = [sys.executable, "-m", "engram", *command.split()[1:], "--help"]
    shown = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert f"Usage: {command} " in shown


def test_no_text_installs_another_projects_package_of_our_name():
    pages = [*ROOT.glob("*.md"), *DOCS.glob("*.md"), *(ROOT / "scripts").iterdir(), ROOT / "Dockerfile"]
    rooms = ("app", "benchmarks", "client", "engram", "examples", "models", "training")
    code = [
        path for room in rooms for suffix in ("py", "js", "html", "md") for path in ROOT.glob(f"{room}/**/*.{suffix}")
    ]
    installs = re.compile(r"pip install [^\n]*(?<![\w./-])engram\b(?!-)")
    assert [path.name for path in (*pages, *code) if installs.search(path.read_text())] == []


def test_links_between_documents_lead_somewhere():
    for page in [*DOCS.glob("*.md"), *ROOT.glob("*.md")]:
        for target, _, anchor in re.findall(r"\]\(([^)#:]*)(#([^)]*))?\)", page.read_text()):
            path = page.parent / target if target else page
            assert path.exists(), f"{page.name} links to {target}"
            assert not anchor or anchor in anchors(path), f"{page.name} links to {target}#{anchor}"


@functools.cache
def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    texts = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S), re.M)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text).lower() for text in texts]
    return {re.sub(r"[^\w -]", "", text).replace(" ", "-") for text in plain}


def test_every_page_is_in_the_navigation_once():
    text = (ROOT / "mkdocs.yml").read_text().split("\nnav:\n")[1]
    listed = re.findall(r"([\w-]+\.md)$", text, re.M)
    assert sorted(listed) == sorted(page.name for page in DOCS.glob("*.md"))


def test_models_page_names_functions_and_tests_that_there_are():
    tables = (DOCS / "models.md").read_text()
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    functions = {name for row in tables.splitlines() if "| `test_" in row for name in re.findall(r"`([a-z_]+)`", row)}
    named = set(re.findall(r"`(test_\w+)`", tables))
    assert len(named) > 25
    assert all(f"def {name}(" in tests for name in named), sorted(named)
    assert all(hasattr(addressing, name) for name in functions - named), sorted(functions)


def test_models_page_names_every_option():
    tables = (DOCS / "models.md").read_text()
    configs = [config for config, _ in (*MODELS.values(), *CELLS.values())]
    options = {field.name for config in configs for field in dataclasses.fields(config)}
    assert all(f"`{name}`" in tables for name in options - {"kind"}), sorted(options)


def test_invariants_name_files_and_tests_that_exist():
    page = (DOCS / "invariants.md").read_text()
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    files, named = set(re.findall(r"`([\w/]+\.\w+)`", page)), set(re.findall(r"`(test_\w+)`", page))
    assert {name for name in files if "/" in name and not (ROOT / name).is_file()} == set()
    assert {name for name in named if f"def {name}(" not in tests} == set()
    rows = [row.strip("| ").split(" | ") for row in page.splitlines() if row.startswith("| ") and "held by" not in row]
    assert {row[0]: len(row) for row in rows if len(row) != 3 or "/" not in row[1]} == {}


def test_security_page_has_every_scope_and_limit_and_real_tests():
    page = (DOCS / "security.md").read_text()
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    rows = {row[0] for row in first_cells("security.md")}
    assert rows >= {*SCOPES, *KeyLimits._fields}
    assert {name for name in re.findall(r"`(test_\w+)`", page) if f"def {name}(" not in tests} == set()


# The glossary


def table(heading: str) -> list[list[str]]:
    """Return the rows of the table below a heading of the glossary."""
    section = (DOCS / "glossary.md").read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")][1:]


def prose(path: str, text: str) -> list[str]:
    """Return the docstrings and comments of a Python or C file, without code in backticks."""
    if path.endswith(".py"):
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        found = [token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT] + docstrings(text)
    else:
        found = [comment.strip("/* \n") for comment in re.findall(r"/\*.*?\*/|//[^\n]*", text, re.S)]
    return [re.sub(r"`[^`]*`", "", text) for text in found]


def docstrings(text: str) -> list[str]:
    """Return all strings of a Python file that are statements: docstrings, also of fields and constants."""
    nodes = ast.walk(ast.parse(text))
    values = [node.value.value for node in nodes if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)]
    return [value.strip() for value in values if isinstance(value, str)]


def defined(text: str) -> set[str]:
    """Return the names of a Python file's classes, functions and fields."""
    nodes = list(ast.walk(ast.parse(text)))
    names = {node.name for node in nodes if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)}
    return names | {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def code(room: str) -> dict[str, str]:
    """Return the Python and C files of a room: their text by their path."""
    files = [path for suffix in ("py", "c", "h") for path in sorted(ROOT.glob(f"{room}/**/*.{suffix}"))]
    return {str(path.relative_to(ROOT)): path.read_text() for path in files}


def test_glossary_names_what_the_code_defines():
    files = [file for room in ROOMS for file in code(room).items()]
    names = {name for path, text in files if path.endswith(".py") for name in defined(text)}
    rows = [row for heading in ("The networks", "Training", "Serving", "The store") for row in table(heading)]
    assert len(rows) >= 25
    assert [name for row in rows for name in re.findall(r"`(\w+)`", row[1]) if name not in names] == []


@pytest.mark.parametrize("room", ROOMS)
def test_retired_words_occur_in_no_docstring_and_no_comment(room):
    words = [word for row in table("Not used") for word in row[0].split(", ")]
    retired = re.compile(rf"\b({'|'.join(words)})\b(?!:)", re.I)  # "name:" describes a field or parameter
    texts = [(path, found) for path, text in code(room).items() for found in prose(path, text)]
    assert [(path, found) for path, found in texts if retired.search(found)] == []


@pytest.mark.parametrize("room", ROOMS)
def test_docstrings_begin_with_their_subject_or_verb(room):
    clauses = ("What ", "That ", "Those ", "Where ", "Who ", "Whose ", "Of ", "So ")
    files = [(path, text) for path, text in code(room).items() if path.endswith(".py")]
    assert [(path, found) for path, text in files for found in docstrings(text) if found.startswith(clauses)] == []


def test_names_of_tests_have_at_most_ten_words():
    texts = [path.read_text() for path in sorted((ROOT / "tests").rglob("test_*.py"))]
    names = [name for text in texts for name in re.findall(r"def test_(\w+)\(", text)]
    assert len(names) > 2000
    assert [name for name in names if name.count("_") > 9] == []
