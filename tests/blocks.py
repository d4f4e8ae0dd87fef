"""The blocks of code in README and the documents, for the tests that run or read them."""

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import typer

from engram.cli import explained
from engram.main import command_line

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

FENCE = re.compile(r"^(?P<fence>```+)(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=fence)$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^    (engram .*)$", re.MULTILINE)
"""A command that a page shows without a fence."""

COMMENT = re.compile(r"(^|(?<=\s))#[^\n]*", re.MULTILINE)


class Block(NamedTuple):
    """A fenced block: of `language`, `reason` is why it is not run, empty where it is."""

    page: Path
    line: int
    language: str
    reason: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    text = page.read_text()
    found = []
    for fence in FENCE.finditer(text):
        language, _, reason = fence["info"].partition(" ")
        found.append(Block(page, text[: fence.start()].count("\n") + 1, language, reason, fence["text"]))
    return found


def commands_of(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the place and the words of every command that a page shows in blocks for a shell, or indented."""
    for block in blocks(page):
        if block.language == "sh":
            yield from ((str(block), words) for words in words_of(block.text))
    for found in INDENTED.finditer(FENCE.sub("", page.read_text())):
        yield from ((page.name, words) for words in words_of(found[1]))


def words_of(script: str) -> Iterator[list[str]]:
    """Yield the words of each simple command of a shell script, without redirections and variables that it sets."""
    lexer = shlex.shlex(COMMENT.sub("", script).replace("\\\n", " "), posix=True, punctuation_chars="();<>|&\n")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
    words: list[str] = []
    for word in (*lexer, "\n"):
        if set(word) <= set("();|&\n"):
            while words and re.match(r"\w+=", words[0]):
                words.pop(0)
            if words:
                yield words
            words = []
        elif words and set(words[-1]) <= set("<>"):
            words.pop()  # a redirection, with its file
        else:
            words.append(word)


def refusal(words: Sequence[str]) -> str | None:
    """Return why the command line refuses some words behind `engram`, or None where it takes them."""
    command, name, rest, parent = command_line(), "engram", list(words), None
    try:
        while True:
            parent = command.make_context(name, rest, parent)
            if not hasattr(command, "commands"):
                return None
            name, command, rest = command.resolve_command(parent, [*parent._protected_args, *parent.args])
    except typer.Exit:  # --help, --version
        return None
    except typer.TyperException as mistake:
        return explained(mistake)
