"""Commands as tests run them, in a process of their own or in this one."""

import subprocess
import sys

import pytest
import torch

from engram import main as cli
from tests.training import tiny

no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")


def engram(*words):
    """Run `engram` in a process of its own."""
    command = [sys.executable, "-m", "engram", *map(str, words)]
    return subprocess.run(command, cwd=tiny.ROOT, capture_output=True, text=True, timeout=100)


def done(capsys, *words):
    """Run a command in this process, and return what it printed."""
    assert cli.main(list(map(str, words))) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def complaint(capsys, *words):
    """Return the one line of a command that failed as it should, run in this process."""
    assert cli.main(list(map(str, words))) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("engram: ")
    assert printed.count("\n") == 1
    return printed.strip()
