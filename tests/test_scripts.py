"""The scripts: the preparations of those that run Engram, and the table of rooms."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kernels import build

ROOT = Path(__file__).parents[1]


@pytest.fixture
def checkout(tmp_path):
    """Return a checkout of the kernels and the scripts, whose .venv has the packages of this Python."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    shutil.copytree(ROOT / "kernels", tmp_path / "kernels")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    (tmp_path / "client").mkdir()
    for name in ("pyproject.toml", "constraints.txt", "hatch_build.py", "client/pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / ".venv" / "installed-engram-").touch()
    return tmp_path


def install(checkout, extras=""):
    """Return what a script prints on the error output before it starts Engram: scripts/serve, or one with extras."""
    script = f'set -eu; root="{checkout}"; . "$root/scripts/environment"; install "{extras}"'
    environment = os.environ | {"PATH": f"{checkout / 'bin'}:/usr/bin:/bin", "PYTHON": sys.executable}
    run = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True, cwd="/", env=environment)
    assert run.stdout == ""
    return run.stderr


def libraries(checkout):
    return [(path.name, path.stat().st_mtime_ns) for path in sorted((checkout / "kernels").glob("*.so"))]


@pytest.mark.slow
def test_kernels_are_rebuilt_only_after_a_source_changed(checkout, monkeypatch):
    before = libraries(checkout)
    assert (install(checkout), libraries(checkout)) == ("", before)
    header = checkout / "kernels/src/model.h"
    header.write_text(header.read_text().replace("double clip;", "double clip; /* Bounds. */"))
    assert "libengram" in install(checkout)
    after = libraries(checkout)
    assert [new > old for (_, new), (_, old) in zip(after, before, strict=True)] == [True] * len(before)
    assert (install(checkout), libraries(checkout)) == ("", after)
    monkeypatch.setattr(build, "HERE", checkout / "kernels")
    monkeypatch.setattr(build, "SOURCES", checkout / "kernels" / "src")
    assert build.are_current()


def test_script_goes_on_where_kernels_cannot_be_built(checkout):
    python = checkout / ".venv/bin/python"
    python.write_text(python.read_text().replace('"$@"', '-S "$@"'))  # without packages, so without zig and pip
    (checkout / "kernels/src/model.h").write_text("#error")
    assert "zig's C compiler was not found" in install(checkout)
    assert "The kernels are not built: Engram goes on without them." in install(checkout)


PYTHON = """
class Shelf:
    def put(self, book, *others, place=None):
        def find():
            return place
        return find
"""

C = r"""
#define EACH(n) for (int i = 0; i < (n); i++) {
struct shelf { int books; };
static const char *const names[] = {"{", "}"};
/* int nothing(void) { */
static int sum(const struct shelf *shelf, int (*count)(int, int),
               int first) {
  if (first) {
    return '{';
  }
  return count(shelf->books, first);
}
int none(void) { return 0; }
"""


def rooms(*arguments):
    """Return the rows of the table that scripts/rooms prints, each a list of its cells."""
    command = [sys.executable, ROOT / "scripts/rooms", *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return [re.split(r"  +", line) for line in run.stdout.splitlines()[1:]]


@pytest.fixture
def library(tmp_path):
    """Return a checkout of two rooms."""
    for file, source in {"library/shelf.py": PYTHON, "library/src/shelf.c": C, "tests/test_shelf.py": PYTHON}.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(source)
    return tmp_path


def test_rooms_prints_the_largest_functions_of_python_and_c(library):
    assert rooms(library) == [
        ["library", "1", "6", "4 Shelf.put", "3 Shelf.put", "0"],
        ["library/src", "1", "13", "7 sum", "3 sum", "0"],
        ["total", "2", "19", "7 sum", "3 Shelf.put", "0"],
    ]


def test_rooms_prints_two_checkouts_side_by_side(library, tmp_path_factory):
    before = shutil.copytree(library, tmp_path_factory.mktemp("before") / "checkout")
    shutil.rmtree(before / "library/src")
    lines = "\n".join(f"    x = {number}" for number in range(40))
    (before / "library/shelf.py").write_text(f"def tidy():\n{lines}\n")
    assert rooms(library, "--before", before) == [
        ["library", "1", "41 -> 6", "41 tidy -> 4 Shelf.put", "0 tidy -> 3 Shelf.put", "1 -> 0"],
        ["library/src", "- -> 1", "- -> 13", "- -> 7 sum", "- -> 3 sum", "- -> 0"],
        ["total", "1 -> 2", "41 -> 19", "41 tidy -> 7 sum", "0 tidy -> 3 Shelf.put", "1 -> 0"],
    ]


def recording(program):
    """Put a program there that only writes down its arguments; return the file of them."""
    program.parent.mkdir(exist_ok=True)
    program.write_text('#!/bin/sh\necho "$@" >> "$0.calls"\n')
    program.chmod(0o755)
    return program.with_name(f"{program.name}.calls")


def test_first_start_installs_by_pip_with_progress(checkout):
    (checkout / ".venv/installed-engram-").unlink()
    calls = recording(checkout / ".venv/bin/python")
    install(checkout)
    command = "-m pip install --disable-pip-version-check"
    assert calls.read_text() == f"{command} --constraint {checkout}/constraints.txt --editable {checkout}\n"
    assert (checkout / ".venv/installed-engram-").exists()


def test_first_start_installs_by_uv_where_there_is_one(checkout):
    (checkout / ".venv/installed-engram-").unlink()
    calls = recording(checkout / "bin/uv")
    install(checkout)
    command = f"pip install --python {checkout}/.venv/bin/python"
    assert calls.read_text() == f"{command} --constraint {checkout}/constraints.txt --editable {checkout}\n"


def needed_to_build(checkout):
    """Return what the build of the package asks an installer for."""
    code = "from hatchling.build import get_requires_for_build_editable as needed; print(*needed())"
    return subprocess.check_output([sys.executable, "-P", "-c", code], text=True, cwd=checkout).split()


def test_compiler_is_downloaded_only_where_kernels_are_to_be_built(checkout):
    assert "ziglang" not in needed_to_build(checkout)
    (checkout / "kernels/src/model.h").write_text("/* Changed. */")
    assert "ziglang" in needed_to_build(checkout)


@pytest.mark.parametrize(("extras", "editable"), [("", ["."]), ("test", [".[test]", "client"])])
def test_extras_install_the_client_by_the_same_call(checkout, extras, editable):
    python, calls = checkout / ".venv/bin/python", checkout / "calls"
    python.write_text(f'#!/bin/sh\nprintf "%s\\n" pip-call "$@" >> "{calls}"\n')
    (checkout / ".venv" / "installed-engram-").unlink()
    install(checkout, extras)
    words = calls.read_text().splitlines()
    assert (words.count("pip-call"), words.count("install")) == (1, 1)
    places = [words[place + 1] for place, word in enumerate(words) if word == "--editable"]
    assert places == [str(checkout) + editable[0].removeprefix("."), *(str(checkout / name) for name in editable[1:])]
