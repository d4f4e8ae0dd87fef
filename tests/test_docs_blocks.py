"""Every block of code in README and the documents: it runs and prints what is shown, or is read by what it is for."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.app.harness import Server, running_server
from tests.blocks import PAGES, ROOT, Block, blocks, commands_of, refusal, words_of

REASONS = {
    "docker": "it needs Docker",
    "downloads": "it downloads packages",
    "example": "it has files, keys or hosts of the reader",
    "kubernetes": "it needs a cluster",
    "minutes": "it takes minutes",
    "postgres": "it needs machines with PostgreSQL",
    "serves": "it starts a server, which does not end",
}
"""The reasons for which a block is not run, as they stand behind its language."""

LANGUAGES = {"json", "math", "nginx", "python", "sh", "text", "toml", "yaml"}

ELSEWHERE = {
    "import.md": "tests/training/test_torch_step.py",
    "models.md": "tests/training/test_own.py",
    "training.md": "tests/training/tasks/test_own.py",
}
"""Pages whose Python is a file of its own, which these tests import."""

ADDRESS = "127.0.0.1:8000"
VARYING = {"id", "opened", "idle_seconds", "expires_in", "request_id"}
"""Members of answers that differ from time to time."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(data=tmp_path_factory.mktemp("docs") / "data") as server:
        yield server


@pytest.fixture(scope="module")
def routes(server: Server) -> dict[str, dict[str, Any]]:
    """The methods of every path of the server."""
    paths: dict[str, dict[str, Any]] = httpx.get(f"{server.url}/openapi.json").json()["paths"]
    return paths


def named(pages: list[Path]) -> list[Any]:
    return [pytest.param(page, id=page.name) for page in pages]


def run_by_us(page: Path) -> list[Block]:
    languages = {"sh"} if page.name in ELSEWHERE else {"python", "sh"}
    return [block for block in blocks(page) if block.language in languages and not block.reason]


@pytest.mark.parametrize("page", named([page for page in PAGES if run_by_us(page)]))
def test_blocks_of_a_page_run_and_print_what_is_shown(page, server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    of_page, names = blocks(page), {"__name__": "__main__"}
    for block, following in zip(of_page, [*of_page[1:], None], strict=True):
        if block in run_by_us(page):
            text = block.text.replace(ADDRESS, server.url.removeprefix("http://"))
            printed = run_python(block, text, names) if block.language == "python" else run_shell(block, text, tmp_path)
            check_printed(following, printed.replace(server.url, f"http://{ADDRESS}"))


def run_python(block: Block, text: str, names: dict[str, Any]) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(text, str(block), "exec"), names)
    return printed.getvalue()


def run_shell(block: Block, text: str, directory: Path) -> str:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ENGRAM_")} | {"PATH": path}
    command = ["sh", "-euc", text]
    done = subprocess.run(command, capture_output=True, text=True, cwd=directory, env=environment, timeout=60)
    assert done.returncode == 0, f"{block}: {done.stderr}"
    return done.stdout


def check_printed(shown: Block | None, printed: str) -> None:
    """Compare what a block printed with the block behind it, if that is text or JSON."""
    if shown is not None and shown.language == "text":
        assert printed == shown.text, str(shown)
    elif shown is not None and shown.language == "json":
        assert without_varying(json.loads(printed)) == without_varying(json.loads(shown.text), near=True), str(shown)


def without_varying(value: Any, near: bool = False) -> Any:
    """Return a value of JSON without the members that vary. near: its numbers equal those that differ by rounding."""
    if isinstance(value, dict):
        return {name: without_varying(part, near) for name, part in value.items() if name not in VARYING}
    if isinstance(value, list):
        return [without_varying(part, near) for part in value]
    return pytest.approx(value, abs=1e-4) if near and isinstance(value, float) else value


def test_shown_output_that_differs_fails():
    shown = Block(Path("page.md"), 1, "json", "", '{"id": "a", "outputs": [[0.5, 1]]}')
    check_printed(shown, '{"id": "b", "outputs": [[0.50001, 1]]}')
    for printed in (
        '{"id": "b", "outputs": [[0.51, 1]]}',
        '{"outputs": [[0.5]]}',
        '{"outputs": [[0.5, 1]], "steps": 1}',
    ):
        with pytest.raises(AssertionError, match=r"page\.md:1"):
            check_printed(shown, printed)
    with pytest.raises(AssertionError, match=r"page\.md:1"):
        check_printed(shown._replace(language="text", text="12\n"), "13\n")


def test_every_block_has_a_language_and_known_reasons():
    all_blocks = [block for page in PAGES for block in blocks(page)]
    assert len(all_blocks) > 80
    assert {str(block): block.language for block in all_blocks if block.language not in LANGUAGES} == {}
    assert {str(block): block.reason for block in all_blocks if block.reason not in {"", *REASONS}} == {}
    fences = {page.name: len(re.findall("^ *```", page.read_text(), re.MULTILINE)) for page in PAGES}
    assert fences == {page.name: 2 * len(blocks(page)) for page in PAGES}


def test_blocks_of_data_can_be_read():
    readers = {"json": json.loads, "toml": tomllib.loads, "yaml": yaml.safe_load}
    for block in (block for page in PAGES for block in blocks(page) if block.language in readers):
        assert readers[block.language](block.text), str(block)


@pytest.mark.parametrize("page", named([page for page in PAGES if any(commands_of(page))]))
def test_commands_of_a_page_are_commands_of_the_checkout(page, routes):
    for place, words in commands_of(page):
        fault = faults_of(words, routes)
        assert fault is None, f"{place}: {' '.join(words)}: {fault}"


def faults_of(words: list[str], routes: dict[str, dict[str, Any]]) -> str | None:
    """Return what is wrong with a command, if anything is known of it."""
    if words[0] in ("engram", "torchrun"):
        return refusal(words[words.index("engram") + 1 :])
    if words[0] == "curl":
        return fault_of_request(words, routes)
    if words[0] in ("python", "python3") and words[1].endswith(".py"):
        return None if (ROOT / words[1]).is_file() else f"there is no {words[1]}"
    if words[0].startswith("scripts/"):
        return None if os.access(ROOT / words[0], os.X_OK) else f"there is no program {words[0]}"
    return None


def fault_of_request(words: list[str], routes: dict[str, dict[str, Any]]) -> str | None:
    """Return what is wrong with the request of a curl to the server's usual address."""
    [url] = [word for word in words if word.startswith("http://")]
    if not re.match(r"http://127\.0\.0\.1:800[01]/", url):
        return f"its address is {url}"
    path = re.sub(r"\?.*", "", url.split("/", 3)[3])
    has_body = not {"-d", "--data-binary", "--json"}.isdisjoint(words)
    method = words[words.index("-X") + 1] if "-X" in words else "POST" if has_body else "GET"
    for route, methods in routes.items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", route), f"/{path}"):
            return None if method.lower() in methods else f"{route} has no {method}"
    return f"there is no route /{path}"


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        ("engram train dnc-copy", "engram train: --out: it needs a value"),
        ("X=1 engram serve --no-such 3", "No such option: --no-such"),
        ("engram nothing", "No such command 'nothing'"),
        ("curl -s http://127.0.0.1:8000/nothing | cat", "there is no route /nothing"),
        ("curl -X DELETE http://127.0.0.1:8000/models", "/models has no DELETE"),
        ("scripts/nothing && true", "there is no program scripts/nothing"),
        ("python examples/nothing.py runs", "there is no examples/nothing.py"),
    ],
)
def test_wrong_command_is_found(command, fault, routes):
    assert fault in str(faults_of(next(words_of(command)), routes))


def test_python_of_other_pages_is_run_by_their_tests():
    for name, test in ELSEWHERE.items():
        assert re.search(rf'"{name}"\)\.read_text\(\).*?```python', (ROOT / test).read_text(), re.DOTALL), name
    assert {page.name for page in PAGES} >= set(ELSEWHERE)
