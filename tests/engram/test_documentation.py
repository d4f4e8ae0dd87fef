"""engram docs: the documentation, built and served."""

import subprocess
import sys

import httpx
import pytest

from tests.engram.running import complaint
from tests.training import tiny

pytestmark = pytest.mark.slow


def test_documentation_is_served_until_it_is_interrupted():
    command = [sys.executable, "-m", "engram", "docs", "--port", "0"]
    with subprocess.Popen(command, cwd=tiny.ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            line = server.stdout.readline()
            url, _, words = line.partition(" ")
            assert words.startswith("has the documentation")
            assert "<title>Engram" in httpx.get(f"{url}/").text
        finally:
            server.send_signal(2)
    assert server.returncode == 130


def test_directory_of_something_else_is_kept(capsys, tmp_path):
    (tmp_path / "mine.txt").touch()
    assert "is no site of before" in complaint(capsys, "docs", "--out", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
