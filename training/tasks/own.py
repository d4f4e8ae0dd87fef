"""Users' own tasks: a Python file registers them, and runs before a preset or a checkpoint names one."""

import importlib.util
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path

from models.config import ConfigError
from models.faults import line_of, message_of
from training.tasks import TASKS


def load_tasks(file: Path) -> None:
    """Run a Python file that registers tasks, as an import would. Raises ConfigError, which names the file and line.

    The file can import its neighbours, as a script can. Run again, it registers its tasks anew.
    """
    if not file.is_file():
        raise ConfigError(f"--tasks {file}: there is no such file; it is a Python file that registers tasks")
    path, before = str(file.resolve()), dict(TASKS)
    spec = importlib.util.spec_from_file_location(path, path, loader=SourceFileLoader(path, path))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[path] = importlib.util.module_from_spec(spec)  # annotations are looked up there
    if str(file.resolve().parent) not in sys.path:
        sys.path.append(str(file.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ConfigError(f"--tasks {file}{line_of(error, path)}: {_message(error)}") from error
    if before == TASKS:
        raise ConfigError(f"--tasks {file}: it registers no task: put @register, of training.tasks, above its class")


def _message(error: BaseException) -> str:
    return str(error) if isinstance(error, ConfigError) else message_of(error)
