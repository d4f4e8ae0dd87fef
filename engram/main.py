"""The command line: one module of engram.commands for each command."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.main import get_command

from engram.cli import explained
from engram.commands import Commands

PROGRAM = "engram"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status: 0, 1 after an error, 2 after a mistake, 130 after an interruption."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status: int = command_line().main(words, PROGRAM, standalone_mode=False, obj=words)
        return status
    except typer.TyperException as mistake:
        print(explained(mistake), file=sys.stderr)
        return mistake.exit_code
    except typer.Abort as ended:  # typer's name for an EOFError
        return _fail(ended.__cause__ or ended)
    except Exception as error:
        return _fail(error)


def _fail(error: BaseException) -> int:
    """Print an error as one line, and return 1. Raises one that is a bug."""
    from app.errors import EngramError
    from training import REPORTED

    if isinstance(error, ModuleNotFoundError):
        message = (
            f"{error}: this command needs more packages: in the checkout of Engram, pip install -c constraints.txt "
            "-e '.[train]'"
        )
    elif isinstance(error, OSError) and error.filename is not None and error.strerror:
        message = f"{error.filename}: {error.strerror}"
    elif isinstance(error, (*REPORTED, EngramError)):
        message = str(error)
    else:
        raise error
    print(f"{PROGRAM}: {'; '.join(line.strip() for line in message.splitlines())}", file=sys.stderr)
    return 1


def command_line() -> Commands:
    """Return the commands, as typer's group."""
    app = typer.Typer(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
    app.callback(invoke_without_command=True)(_start)
    group = get_command(app)
    assert isinstance(group, Commands)
    return group


def _start(
    context: typer.Context, shows_version: Annotated[bool, typer.Option("--version", help="show the version")] = False
) -> None:
    """Train neural networks with memory (DNC, NTM, RNN), export and serve them."""
    if shows_version:
        print(_version())
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help(), file=sys.stderr)
        raise typer.Exit(2)


def _version() -> str:
    from app.version import version

    found = version()
    return f"{PROGRAM}, not installed" if found is None else f"{PROGRAM} {found}"
