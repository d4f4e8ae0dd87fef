"""The command line: one module of engram.commands for each command."""

import argparse
import shlex
import sys
from collections.abc import Sequence

from app.errors import EngramError
from app.version import version
from engram.commands import (
    bench,
    card,
    check,
    doctor,
    evaluate,
    export,
    import_,
    isolate,
    keys,
    models,
    plot,
    serve,
    store,
    train,
    zoo,
)
from training import TOLD

COMMANDS = (
    *(train, zoo, evaluate, plot, export, import_, card, models),
    *(bench, serve, keys, store, doctor, check, isolate),
)
"""In the order of the help. `add(commands)` adds a command, `run(options)` runs it and returns the exit status."""

NOT_RECORDED = ("--resume", "--save", "--json")
"""Switches that the command on record leaves out: without them it does or prints the same from the start."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status: 0, 1 after an error, 130 after an interruption."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(words)
    options.command_line = shlex.join(["engram", *(word for word in words if not _is_left_out(word, options))])
    try:
        status: int = options.run(options)
    except KeyboardInterrupt:
        return 130
    except ModuleNotFoundError as error:
        return _fail(
            f"{error}: this command needs more packages: in the checkout of Engram, pip install -c constraints.txt "
            "-e '.[train]'"
        )
    except (*TOLD, EngramError) as error:
        return _fail(str(error))
    return status


def _is_left_out(word: str, options: argparse.Namespace) -> bool:
    """Return whether a word is one of NOT_RECORDED, and not an option with a value."""
    return word in NOT_RECORDED and getattr(options, word.removeprefix("--")) is True


def _fail(message: str) -> int:
    print(f"engram: {'; '.join(line.strip() for line in message.splitlines())}", file=sys.stderr)
    return 1


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(
        prog="engram", description="Train neural networks with memory (DNC, NTM, RNN), export and serve them."
    )
    top.add_argument("--version", action="version", version=_version())
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return top


def _version() -> str:
    found = version()
    return "engram, not installed" if found is None else f"engram {found}"
