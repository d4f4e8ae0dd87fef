"""Tables as they are printed: plain in a pipe, with lines on a terminal, as JSON for programs."""

import json
import sys

import pytest

from engram.commands.train import print_seeds
from engram.output import line_printer, print_table
from tests.engram.terminal import on_terminal
from tests.training import tiny
from training.seeds import End

ROWS = [["one", 1, "-"], ["another", "1,234.5", 10]]


def test_columns_are_aligned_and_numbers_to_the_right(capsys):
    print_table(["name", "size", ""], ROWS)
    assert capsys.readouterr().out == "name        size\none            1   -\nanother  1,234.5  10\n"
    print_table(["name", "size"], [])
    assert capsys.readouterr().out == "name  size\n"


def test_terminal_shows_the_table_of_models_with_lines():
    status, printed = on_terminal("models", tiny.ROOT / "checkpoints", NO_COLOR="1", COLUMNS="140")
    assert (status, "──────" in printed, "\x1b[3" in printed) == (0, True, False)
    assert any(line.split()[:3] == ["dnc-copy", "dnc", "10"] for line in printed.splitlines())


@pytest.mark.parametrize(("is_terminal", "as_json", "printed"), [(0, 0, "row\n"), (1, 0, ""), (0, 1, "")])
def test_lines_are_printed_as_they_come_only_in_a_pipe(is_terminal, as_json, printed, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: bool(is_terminal))
    line_printer(bool(as_json))("row")
    assert capsys.readouterr().out == printed


def test_seeds_are_printed_with_their_ends_for_programs(tmp_path, capsys):
    tiny.checkpoint(tmp_path / "seed-1", updates=3)
    print_seeds(tmp_path, {1: End.FINISHED, 2: End.FAILED}, as_json=True)
    printed = json.loads(capsys.readouterr().out)
    assert printed == {
        "directory": str(tmp_path),
        "seeds": [
            {"seed": 1, "end": "finished", "sequences": 12, "converged_after": None},
            {"seed": 2, "end": "failed", "sequences": None, "converged_after": None},
        ],
    }
