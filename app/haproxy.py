"""HAProxy in front of several servers: its program, and its configuration, which is that of deploy/haproxy."""

import itertools
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from app.settings import SettingsError

PLACES = (Path(__file__).parent, Path(__file__).parents[1] / "deploy" / "haproxy")
"""Directories of the configuration: in a wheel, in a checkout."""

PROGRAMS = "/usr/local/sbin", "/usr/sbin"
"""Directories of programs that are in the PATH of root only."""

INSTALL = "apt-get install haproxy"

SERVERS = re.compile(r"^\.if defined\(SERVERS\)\n.*?^\.else\n(.*?)^\.endif\n", re.M | re.S)
"""The servers of a back end: those of a name, else those in a list."""


def find_haproxy() -> str:
    """Return the path of HAProxy. Raises SettingsError if it is not installed."""
    found = shutil.which("haproxy", path=os.pathsep.join([os.environ.get("PATH", ""), *PROGRAMS]))
    if found is None:
        raise SettingsError(f"servers: several servers need HAProxy, and there is no `haproxy` in PATH: {INSTALL}")
    return found


def configuration(addresses: Sequence[str]) -> str:
    """Return the configuration for servers at these addresses, HOST:PORT: engram-1, engram-2, ... in their order."""
    found = next(path for path in (place / "haproxy.cfg" for place in PLACES) if path.exists())
    return SERVERS.sub(lambda block: _lines(block[1].splitlines()[0], addresses), found.read_text())


def _lines(first: str, addresses: Sequence[str]) -> str:
    """Return a line for each server. first: that of engram-1 in the file."""
    line = re.sub(r" resolvers .*", "", first)
    return "".join(f"{_line(line, number, address)}\n" for number, address in zip(itertools.count(1), addresses))


def _line(first: str, number: int, address: str) -> str:
    named = first.replace("engram-1:8000", address).replace("engram-1", f"engram-{number}")
    return named.replace(" id 1 ", f" id {number} ")
