"""Imports point one way: docs/architecture.md has the table of rooms, with what each may import, and is held here."""

import ast
import functools
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
TABLE = "docs/architecture.md"

Graph = Mapping[str, set[str]]
"""Who imports whom: the files of the project that each imports, or the rooms; packages of others are in neither."""


class Room(NamedTuple):
    """A row of the table: files and folders, and the files, folders and packages that they may import."""

    places: tuple[str, ...]
    allowed: tuple[str, ...]


class House:
    """The files and the table of a checkout."""

    def __init__(self, root: Path) -> None:
        self.rooms = read_table((root / TABLE).read_text())
        self.places = {place: room for room in self.rooms for place in room.places}
        self.files = {str(path.relative_to(root)) for path in python_files(root, self.places)}
        self.imports = {file: set(imports(root, file)) for file in sorted(self.files)}
        self.imports_at_run_time = {file: set(imports(root, file, types=False)) for file in self.imports}

    def place(self, file: str) -> str | None:
        """Return the narrowest place of the table in which a file is."""
        around = [place for place in self.places if file == place or (place[-1] == "/" and file.startswith(place))]
        return max(around, key=len, default=None)

    def room(self, file: str) -> Room | None:
        return self.places.get(self.place(file) or "")

    def may_import(self, file: str, target: str) -> bool:
        """Return whether a file may import another, or a package. A folder stands for the files of its own row."""
        room = self.room(file)
        return room is None or room is self.room(target) or target in room.allowed or self.place(target) in room.allowed

    def faults(self) -> list[str]:
        """Return everything that is wrong with the house."""
        room_graph = {
            ", ".join(room.places): {", ".join(there.places) for there in self.neighbours(room)} for room in self.rooms
        }
        return [
            *self.faults_of_table(),
            *(f"{file} is in no room: give it a row in {TABLE}" for file in self.imports if self.room(file) is None),
            *(
                f"{file} imports {target}, which its row in {TABLE} does not allow"
                for file, targets in self.imports.items()
                for target in sorted(targets)
                if not self.may_import(file, target)
            ),
            *circle("files", {file: targets & self.files for file, targets in self.imports_at_run_time.items()}),
            *circle("rooms", room_graph),
        ]

    def neighbours(self, room: Room) -> Iterator[Room]:
        """Yield the other rooms that the files of a room import."""
        for file, targets in self.imports.items():
            if self.room(file) is room:
                yield from (there for there in map(self.room, targets & self.files) if there and there is not room)

    def faults_of_table(self) -> Iterator[str]:
        named = [place for room in self.rooms for place in room.places]
        yield from (f"{place} has two rows in {TABLE}" for place in self.places if named.count(place) > 1)
        empty = set(named) - set(map(self.place, self.files))
        yield from (f"{place} has a row in {TABLE}, but no file" for place in sorted(empty))
        for name in {name for room in self.rooms for name in room.allowed}:
            if ("/" in name or name.endswith(".py")) and name not in self.places and name not in self.files:
                yield f"{name} is allowed in {TABLE}, but is no room and no file"


def read_table(text: str) -> list[Room]:
    """Return the rows of the table of rooms; the names between backticks count, in the first and the last column."""
    section = text.split("\n## Rooms\n")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    return [Room(*(tuple(re.findall(r"`([^`]+)`", cell)) for cell in (room, allowed))) for room, _, allowed in rows]


def python_files(root: Path, places: Iterable[str]) -> Iterator[Path]:
    """Yield the Python files of a checkout, without its tests: of the root, of packages and of what has a row."""
    yield from root.glob("*.py")
    tops = {place.split("/")[0] for place in places} | {path.parent.name for path in root.glob("*/__init__.py")}
    for top in tops - {"tests"}:
        yield from (root / top).rglob("*.py")


def imports(root: Path, file: str, types: bool = True) -> Iterator[str]:
    """Yield what a file imports, anywhere in it: the files of the project, and the packages of others.

    types: also for types only.
    """
    for name in names_imported((root / file).read_text(), types):
        yield from imported(root, name)


@functools.cache
def names_imported(source: str, types: bool = True) -> tuple[str, ...]:
    """Return the names of modules, and of what is taken from modules, that a source imports."""
    names = []
    for node in nodes(ast.parse(source), types):
        if isinstance(node, ast.Import):
            names += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"a relative import of {node.module}"
            names += [f"{node.module}.{name.name}" for name in node.names]
    return tuple(names)


def nodes(tree: ast.AST, types: bool) -> Iterator[ast.AST]:
    """Yield the nodes of a tree; types: also those that are for types only."""
    for node in ast.iter_child_nodes(tree):
        if types or not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield node
            yield from nodes(node, types)


@functools.cache
def imported(root: Path, name: str) -> tuple[str, ...]:
    """Return the file of a module or of what it defines, or the package of others; nothing for the standard library."""
    parts = name.split(".")
    for source in (root, root / "client"):  # the client is a distribution of its own
        for end in range(len(parts), 0, -1):
            place = source.joinpath(*parts[:end])
            for path in (place.with_suffix(".py"), place / "__init__.py"):
                if path.is_file():
                    return (str(path.relative_to(root)),)
    return () if parts[0] in sys.stdlib_module_names else (parts[0],)


def circle(kind: str, graph: Graph) -> Iterator[str]:
    """Yield a circle of a graph, if there is one."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        yield f"a circle of {kind}: {' <- '.join(error.args[1])}"


def test_files_import_what_their_rooms_may_and_in_no_circle():
    assert House(ROOT).faults() == []


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """Return a copy of the Python files and the table."""
    root = tmp_path_factory.mktemp("house")
    house = House(ROOT)
    for file in (*house.files, TABLE):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, root / file)
    return root


LATER = "\n\ndef later():\n    from app.engine.engine import Engine\n"
CHECKED = "\n\nif TYPE_CHECKING:\n    from app.sessions.session import Session\n"
TOO_MANY = "| `app/nowhere/` | nothing | `app/nobody.py` |"

PLANTED = {
    "between two rooms": (
        "app/stores/base.py",
        "import app.sessions.clock",
        "app/stores/base.py imports app/sessions/clo",
    ),
    "for types only": ("app/stores/base.py", CHECKED, "app/stores/base.py imports app/sessions/session.py"),
    "of a package": ("app/sessions/session.py", "import torch", "app/sessions/session.py imports torch"),
    "in a server without torch": ("app/backends/onnx.py", "import kernels.unroll", "imports kernels/unroll.py"),
    "of a back end": ("app/main.py", "from app.backends import torch", "app/main.py imports app/backends/torch.py"),
    "of a store": ("app/server.py", "import app.stores.sqlite", "app/server.py imports app/stores/sqlite/__init__.py"),
    "of the server": ("benchmarks/server.py", "from app.main import create_app", "imports app/main.py"),
    "in a circle of rooms": ("app/metrics.py", CHECKED, "a circle of rooms: "),
    "in a new file": ("app/annex.py", "import os", "app/annex.py is in no room"),
    "in a circle of files": ("app/engine/run.py", "import app.engine.scheduler", "a circle of files: "),
    "in a circle by a function": ("app/engine/scheduler.py", LATER, "a circle of files: "),
    "to a file of no row": (TABLE, TOO_MANY, "app/nobody.py is allowed in docs/architecture.md, but is no room"),
    "from a row of no file": (TABLE, TOO_MANY, "app/nowhere/ has a row in docs/architecture.md, but no file"),
}


def plant(root: Path, file: str, text: str) -> None:
    """Add to a file, or to the table."""
    path = root / file
    before = path.read_text() if path.exists() else ""
    at_table = "| room | what is in it | may import |\n|---|---|---|\n"
    path.write_text(before.replace(at_table, f"{at_table}{text}\n") if file == TABLE else f"{before}\n{text}\n")


@pytest.mark.parametrize("arrow", PLANTED)
def test_wrong_arrow_is_refused(copied, tmp_path, arrow):
    file, text, fault = PLANTED[arrow]
    house = shutil.copytree(copied, tmp_path / "house")
    plant(house, file, text)
    assert [found for found in House(house).faults() if fault in found]


def test_circle_of_allowed_arrows_between_rooms_is_refused(copied, tmp_path):
    house = shutil.copytree(copied, tmp_path / "house")
    plant(house, "app/metrics.py", "import app.sessions.clock")
    table = house / TABLE
    table.write_text(table.read_text().replace("`prometheus_client` |", "`prometheus_client`, `app/sessions/` |"))
    [fault] = House(house).faults()
    assert fault.startswith("a circle of rooms: ")


def test_frames_are_without_input_and_output():
    tops = {name.split(".")[0] for name in names_imported((ROOT / "app/protocols/frames.py").read_text())}
    assert not tops & {"asyncio", "select", "selectors", "socket", "ssl"}
