"""Words, help, mistakes and completion of the command line."""

import os
import subprocess
import sys
from typing import Annotated, Any

import pytest
import typer
from typer.main import get_command

from app.errors import SessionNotFound
from engram import main as cli
from engram.cli import SEVERAL, TOGETHER, Command, single
from engram.commands import Commands, models
from engram.examples import EXAMPLES
from engram.help import first_sentence
from engram.options import whole
from tests.commands import commands
from tests.engram.running import engram
from tests.engram.terminal import on_terminal
from tests.training import tiny


def given(*words):
    """Return the values that a command with options of several words takes from these words."""
    taken = {}

    def run(
        place: Annotated[str | None, typer.Argument()] = None,
        seeds: Annotated[list[int] | None, typer.Option("--seeds", parser=whole, metavar=f"N{SEVERAL}")] = None,
        at: Annotated[list[str] | None, typer.Option("--at", metavar=f"[KEY=VALUE{TOGETHER}")] = None,
        name: Annotated[str | None, typer.Option("--name")] = None,
        loud: Annotated[bool, typer.Option("--loud")] = False,
    ) -> int:
        taken.update(place=place, seeds=seeds, at=at, name=name, loud=loud)
        return 0

    get_command(single(run)).main(list(words), standalone_mode=False)
    return {name: value for name, value in taken.items() if value}


@pytest.mark.parametrize(
    ("words", "values"),
    [
        ("--seeds 1 -2 3 --loud here", {"seeds": [1, -2, 3], "loud": True, "place": "here"}),
        ("here --seeds 1 --seeds 2 3", {"seeds": [1, 2, 3], "place": "here"}),
        ("--seeds=1 here", {"seeds": [1], "place": "here"}),
        ("--at a=1 b=2 --at a=2", {"at": ["a=1 b=2", "a=2"]}),
        ("--name one here", {"name": "one", "place": "here"}),
        ("--loud -- --name", {"loud": True, "place": "--name"}),
    ],
)
def test_option_of_several_values_ends_at_the_next(words, values):
    assert given(*words.split()) == values


@pytest.mark.parametrize("words", ["--name", "--name --loud", "--seeds --loud", "--seeds"])
def test_option_without_its_value_is_a_mistake(words):
    with pytest.raises(typer.TyperException) as raised:
        given(*words.split())
    assert raised.value.exit_code == 2


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("trian", "engram: No such command 'trian'. Did you mean train? (see engram --help)"),
        ("keys lst", "engram keys: No such command 'lst'. Did you mean list? (see engram keys --help)"),
        ("train x --jbos 2", "engram train: No such option: --jbos. Did you mean --jobs? (see engram train --help)"),
        (
            "serve --backnd x",
            "engram serve: No such option: --backnd. Did you mean --backend? (see engram serve --help)",
        ),
        ("serve --no-such", "engram serve: No such option: --no-such (see engram serve --help)"),
        ("store", "engram store: Missing command: one of copy, migrate, status (see engram store --help)"),
        ("zoo x --jobs", "engram zoo: --jobs: it needs a value, and there is none (see engram zoo --help)"),
        ("export", "engram export: DIR: it needs a value, and there is none (see engram export --help)"),
        ("card a b", "engram card: Got unexpected extra argument(s) (b) (see engram card --help)"),
        (
            "zoo x --device tpu",
            "engram zoo: --device: 'tpu' is not one of 'auto', 'cpu', 'cuda' (see engram zoo --help)",
        ),
    ],
)
def test_mistake_is_one_line_with_the_nearest_right_word(words, complaint, capsys):
    assert cli.main(words.split()) == 2
    assert capsys.readouterr().err == f"{complaint}\n"


@pytest.mark.parametrize(
    ("error", "status", "printed"),
    [
        (KeyboardInterrupt(), 130, ""),
        (FileNotFoundError(2, "No such file", "a.csv"), 1, "engram: a.csv: No such file\n"),
        (ValueError("not\nso"), 1, "engram: not; so\n"),
        (SessionNotFound("no session 'x'"), 1, "engram: no session 'x'\n"),
    ],
)
def test_error_of_a_command_is_its_exit_status(error, status, printed, capsys, monkeypatch):
    def run() -> int:
        raise error

    monkeypatch.setattr(models, "run", run)
    assert cli.main(["models"]) == status
    assert capsys.readouterr().err == printed


@pytest.mark.parametrize("error", [KeyError("a bug"), EOFError("a bug too")])
def test_bug_in_a_command_is_not_hidden(error, monkeypatch):
    def run() -> int:
        raise error

    monkeypatch.setattr(models, "run", run)
    with pytest.raises(type(error)):
        cli.main(["models"])


def test_every_command_reads_its_words_and_prints_its_help_plainly():
    every = dict(commands())
    assert all(isinstance(command, Command) or hasattr(command, "commands") for command in every.values())
    assert all(command.help for command in every.values())


def test_examples_in_help_are_commands_that_can_be_typed():
    every = dict(commands())
    for name, examples in EXAMPLES.items():
        assert examples
        for example in examples:
            words = example.removesuffix(")").partition("engram ")[2].partition(" <")[0].split()
            path, rest = f"engram {words.pop(0)}", words
            while hasattr(every[path], "commands"):
                path, rest = f"{path} {rest[0]}", rest[1:]
            assert path.startswith(name)
            every[path].make_context(path, rest)


def test_first_sentences_fit_the_list_of_all_commands():
    assert [row.about for row in Commands.table.values() if len(first_sentence(row.about)) > 160] == []


def test_help_has_boxes_and_colours_on_a_terminal_only():
    status, shown = on_terminal("--help")
    assert (status, "\x1b[" in shown, "╭─" in shown) == (0, True, True)
    status, shown = on_terminal("--help", NO_COLOR="1")
    assert (status, "\x1b[3" in shown, "╭─" in shown) == (0, False, True)
    status, shown = on_terminal("bench", "kernels", "--help", COLUMNS="60")
    assert (status, "…" in shown, "threads" in shown) == (0, False, True)
    piped = engram("keys", "--help")
    assert piped.stdout.isascii()
    assert "\x1b" not in piped.stdout


def completed(words: str, **options: Any) -> str:
    """Return what bash is offered after these words."""
    asked = {"_ENGRAM_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    command = [sys.executable, "-c", "import sys; from engram.main import main; sys.exit(main())"]
    ran = subprocess.run(command, env=os.environ | asked, cwd=tiny.ROOT, capture_output=True, text=True, check=True)
    return ran.stdout


def test_completion_knows_commands_options_choices_presets_and_models():
    assert completed("engram ex").split() == ["export"]
    assert completed("engram train --sav").split() == ["--save-every"]
    assert completed("engram train dnc-copy --device c").split() == ["cpu", "cuda"]
    assert completed("engram zoo lstm-c").split() == ["lstm-copy"]
    assert completed("engram infer dnc-c").split() == ["dnc-copy"]


def test_completion_can_be_shown_for_a_shell():
    assert "_ENGRAM_COMPLETE=complete_bash" in on_terminal("--show-completion", SHELL="/bin/bash")[1]
