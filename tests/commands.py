"""The commands of the command line, for the tests that go through all of them."""

from collections.abc import Iterator
from typing import Any

from engram.cli import LazyGroup
from engram.main import PROGRAM, command_line


def commands(group: Any = None, name: str = PROGRAM) -> Iterator[tuple[str, Any]]:
    """Yield every command with its whole name, and every command below it."""
    group = group or command_line()
    for below in group.commands:
        command = group.loaded(below) if isinstance(group, LazyGroup) else group.commands[below]
        yield f"{name} {below}", command
        if hasattr(command, "commands"):
            yield from commands(command, f"{name} {below}")


def names(command: Any) -> list[str]:
    """Return the arguments and options of a command, these by their first name."""
    return [param.opts[0] if param.param_type_name == "option" else param.metavar for param in command.params]
