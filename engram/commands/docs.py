"""engram docs: read the documentation in a browser."""

import functools
import os
import shutil
import subprocess
import sys
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated

import typer

from app.settings import SettingsError
from engram.options import whole

HERE = Path(__file__).resolve().parents[2]
"""The checkout, which has the pages and mkdocs.yml."""


def run(
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="write the pages there, and serve nothing")
    ] = None,
    port: Annotated[
        int, typer.Option("--port", parser=whole, metavar="N", help="port of 127.0.0.1 to serve on; 0 is a free one")
    ] = 8001,
) -> int:
    """Build the site, and serve it until Ctrl-C."""
    site = HERE / "build" / "site" if out is None else out
    _require_replaceable(site)
    _build(site)
    if out is not None:
        print(f"{site}: open {site / 'index.html'} in a browser")
        return 0
    handler = functools.partial(_Quiet, directory=site)
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        print(f"http://127.0.0.1:{server.server_port} has the documentation; Ctrl-C ends it", flush=True)
        server.serve_forever()
    return 0


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


def _require_replaceable(site: Path) -> None:
    """Raise SettingsError unless the directory is empty, missing, or a site of before."""
    if site.exists() and not (site.is_dir() and ((site / "search").is_dir() or not any(site.iterdir()))):
        raise SettingsError(f"{site} is no site of before: give an empty directory, or one that is not there")


def _build(site: Path) -> None:
    """Build the site. Raises SettingsError without the pages, or without mkdocs."""
    if not (HERE / "mkdocs.yml").exists():
        raise SettingsError(f"{HERE} has no mkdocs.yml: the documentation is in the checkout of Engram, in docs/")
    if shutil.which("mkdocs", path=Path(sys.executable).parent) is None:
        raise SettingsError(
            "mkdocs is not installed: in the checkout of Engram, pip install -c constraints.txt -e '.[docs]'"
        )
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site.resolve())]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=HERE, env=environment, check=False)  # noqa: S603 - the words are ours
    if done.returncode:
        raise SettingsError("mkdocs could not build the site; its messages are above")
