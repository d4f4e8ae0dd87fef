"""The command `engram check`, with a real file; beside a server as a process of its own."""

import io
import json
import signal
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import httpx
import pytest

from app.stores.sqlite import FILE
from engram import main as cli
from tests.app.checkpoints import make_checkpoint
from tests.app.harness import running_server
from tests.app.stores.test_stores import altered, recorded
from tests.engram.running import engram

pytestmark = pytest.mark.slow


def check(directory: Path, *options: str) -> tuple[int, list[str], str]:
    """Run `engram check` in this process; return its status, the lines of stdout, and stderr."""
    printed, error = io.StringIO(), io.StringIO()
    with redirect_stdout(printed), redirect_stderr(error):
        status = cli.main(["check", "--data", str(directory), *options])
    return status, printed.getvalue().splitlines(), error.getvalue()


def test_intact_store_is_reported_as_intact(tmp_path):
    recorded(tmp_path)
    assert check(tmp_path) == (0, [f"{tmp_path}: 2 open sessions, no problems found"], "")


def test_damage_is_listed_by_session_and_changes_the_status(tmp_path):
    recorded(tmp_path)
    altered(tmp_path, "UPDATE log SET checksum = 1 WHERE tape = 1 AND step = 0")
    status, lines, _ = check(tmp_path)
    assert (status, lines[0].startswith("session a: "), lines[1]) == (
        1,
        True,
        f"{tmp_path}: 2 open sessions, 1 problem found",
    )


def test_findings_are_the_same_in_json(tmp_path):
    recorded(tmp_path)
    altered(tmp_path, "UPDATE log SET checksum = 1 WHERE tape = 1 AND step = 0")
    _, (problem, _), _ = check(tmp_path)
    status, lines, _ = check(tmp_path, "--json")
    assert status == 1
    assert json.loads("".join(lines)) == {"data": str(tmp_path), "sessions": 2, "problems": [problem]}


def test_damaged_page_is_reported(tmp_path):
    recorded(tmp_path)
    content = bytearray((tmp_path / FILE).read_bytes())
    content[2 * 4096 + 200 : -4096] = b"x" * (len(content) - 3 * 4096 - 200)
    (tmp_path / FILE).write_bytes(content)
    status, lines, error = check(tmp_path)
    assert (status, "Traceback" in error) == (1, False)
    assert lines or "malformed" in error


def test_damage_of_any_page_is_listed(tmp_path, capsys):
    """Of every page but the first, which has the database's header. In this process: there are some thirty pages."""
    recorded(tmp_path / "whole")
    whole = (tmp_path / "whole" / FILE).read_bytes()
    for page in range(len(whole) // 4096):
        content = bytearray(whole)
        content[page * 4096 : page * 4096 + 60] = b"\xa5" * 60
        (tmp_path / str(page)).mkdir()
        (tmp_path / str(page) / FILE).write_bytes(content)
        status = cli.main(["check", "--data", str(tmp_path / str(page)), "--json"])
        printed, error = capsys.readouterr()
        assert (status, "Traceback" in error) == (1, False), f"page {page}: {error}"
        if page:
            assert json.loads(printed)["problems"], f"page {page}: {error}"
        else:
            assert "nothing in it can be read" in error


def test_directory_without_a_store_is_refused_unchanged(tmp_path):
    status, _, error = check(tmp_path / "nothing")
    assert (status, "no such file" in error, (tmp_path / "nothing").exists()) == (1, True, False)


def test_store_of_an_earlier_version_stays_unchanged(tmp_path):
    recorded(tmp_path)
    altered(tmp_path, "PRAGMA user_version = 1")
    status, _, error = check(tmp_path)
    assert (status, "schema 1 is an earlier version's" in error) == (1, True)


@pytest.mark.parametrize("end", [None, signal.SIGKILL])
def test_store_is_checked_only_if_no_server_runs(tmp_path, data, end):
    make_checkpoint(tmp_path / "checkpoints" / "tiny", "ntm")
    with running_server(data=data, checkpoints=tmp_path / "checkpoints") as server:
        session = httpx.post(f"{server.url}/sessions", json={"model": "tiny"}).json()["id"]
        httpx.post(f"{server.url}/sessions/{session}/steps", json={"inputs": [[0] * 4]}).raise_for_status()
        if end is not None:
            server.stop(end)
        ran = engram("check", "--data", data)
    status, lines, error = ran.returncode, ran.stdout.splitlines(), ran.stderr
    if end is None:
        assert (status, "another server using this data directory" in error) == (1, True)
    else:
        assert (status, lines) == (0, [f"{data}: 1 open session, no problems found"])
