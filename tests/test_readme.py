"""README's commands do what README says."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.app.harness import running_server

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def block(language: str, containing: str = "") -> str:
    found = (text for text in re.findall(rf"```{language}\n(.*?)```", README, re.S) if containing in text)
    return str(next(found))


def test_curl_answers_as_shown(tmp_path):
    with running_server(data=tmp_path / "data") as server:
        command = block("sh", "curl").replace("http://127.0.0.1:8000", server.url)
        answered = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True, timeout=30).stdout
    shown, got = json.loads(block("json")), json.loads(answered)
    assert (got.keys(), got["steps"]) == (shown.keys(), shown["steps"])
    assert got["outputs"] == [pytest.approx(step, abs=1e-4) for step in shown["outputs"]]
    assert got["trace"]["write_gate"] == [pytest.approx(step, abs=1e-4) for step in shown["trace"]["write_gate"]]


def test_commands_of_the_first_block_are_there():
    commands = re.findall(r"^(scripts/\w+)", block("sh", "scripts/"), re.M)
    assert commands == ["scripts/serve", "scripts/test"]
    assert all((ROOT / command).stat().st_mode & 0o111 for command in commands)
