"""Users' own tasks and models: Python files register them, and run before a preset or a checkpoint names one."""

import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from models.config import ConfigError
from models.faults import line_of, message_of
from models.registry import MODELS
from training.tasks import TASKS


class Register(NamedTuple):
    """A table of classes by name, in which a file registers its own, and the words of a message about it."""

    table: dict[str, Any]
    what: str
    remedy: str


REGISTERS = {
    "--tasks": Register(TASKS, "task", "put @register, of training.tasks, above its class"),
    "--models": Register(MODELS, "model", "put @register_model(KIND, CONFIG), of models.registry, above its class"),
}
"""By the option that names a file."""


class OwnFiles(NamedTuple):
    """The files that register tasks and models of one's own; one may do both, and is then in both."""

    tasks: Sequence[Path] = ()
    models: Sequence[Path] = ()

    @property
    def words(self) -> list[str]:
        """The options of a command that name the files."""
        return [word for option, file in self._by_option for word in (option, str(file))]

    @property
    def _by_option(self) -> list[tuple[str, Path]]:
        return [("--tasks", file) for file in self.tasks] + [("--models", file) for file in self.models]

    def load(self) -> None:
        """Run each file, as an import would. Raises ConfigError, which names the file and line.

        A file can import its neighbours, as a script can. Run again, it registers its classes anew.
        """
        registered: dict[Path, set[str]] = {}
        for option, file in self._by_option:
            place = file.resolve()
            if place not in registered:
                registered[place] = _run(file, option)
            if option not in registered[place]:
                of = REGISTERS[option]
                raise ConfigError(f"{option} {file}: it registers no {of.what}: {of.remedy}")


NO_FILES = OwnFiles()


def run_file(file: Path) -> ModuleType:
    """Run a Python file, and return its module, whose name is its path; it can import its neighbours.

    Raises whatever the file raises.
    """
    path = str(file.resolve())
    spec = importlib.util.spec_from_file_location(path, path, loader=SourceFileLoader(path, path))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[path] = importlib.util.module_from_spec(spec)  # annotations are looked up there
    if str(file.resolve().parent) not in sys.path:
        sys.path.append(str(file.resolve().parent))
    spec.loader.exec_module(module)
    return module


def _run(file: Path, option: str) -> set[str]:
    """Run a Python file, and return the options that it registered classes for. Raises ConfigError."""
    if not file.is_file():
        what = REGISTERS[option].what
        raise ConfigError(f"{option} {file}: there is no such file; it is a Python file that registers {what}s")
    before = {other: dict(of.table) for other, of in REGISTERS.items()}
    try:
        run_file(file)
    except (Exception, SystemExit) as error:
        message = str(error) if isinstance(error, ConfigError) else message_of(error)
        raise ConfigError(f"{option} {file}{line_of(error, str(file.resolve()))}: {message}") from error
    return {other for other, of in REGISTERS.items() if of.table != before[other]}
