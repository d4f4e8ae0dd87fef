"""The commands of the command line, for the tests that go through all of them."""

import argparse
import contextlib
import io
from collections.abc import Iterator, Sequence

from engram.main import parser


def commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield the parser of every command, and of every command below it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield below
                yield from commands(below)


def refusal(words: Sequence[str]) -> str | None:
    """Return why the command line refuses some words behind `engram`, or None where it takes them."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            parser().parse_args(words)
    except SystemExit as end:
        return printed.getvalue() if end.code else None
    return None
