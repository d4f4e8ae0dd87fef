"""The shipped configuration of HAProxy with other servers."""

import re
from pathlib import Path

from app.haproxy import configuration

SHIPPED = (Path(__file__).parents[2] / "deploy" / "haproxy" / "haproxy.cfg").read_text()


def servers(text: str) -> list[tuple[str, str, str]]:
    """Return the name, the address and the options of each server."""
    return re.findall(r"^    server (\S+) (\S+) (.*)$", text, re.M)


def test_servers_take_the_places_of_those_listed():
    found = servers(configuration(["127.0.0.1:1", "127.0.0.1:2"]))
    assert [server[:2] for server in found] == 2 * [("engram-1", "127.0.0.1:1"), ("engram-2", "127.0.0.1:2")]
    assert [server[2] for server in found[:2]] == ["id 1 check", "id 2 check"]


def test_everything_but_the_servers_is_as_shipped():
    changed = configuration(["127.0.0.1:1"]).splitlines()
    removed = [line for line in SHIPPED.splitlines() if line not in changed]
    assert {line.split()[0] for line in removed} == {".if", ".else", "server"}
    assert [line for line in changed if line not in SHIPPED.splitlines()] == [
        "    server engram-1 127.0.0.1:1 id 1 check",
        "    server engram-1 127.0.0.1:1 track sessions/engram-1",
    ]
