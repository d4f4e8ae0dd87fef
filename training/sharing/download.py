"""An archive from a web server, in a file. Needs no torch."""

import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from training.files import CheckpointError
from training.sharing.archive import MAX_BYTES

CHUNK_BYTES = 2**20
TIMEOUT = 60.0
"""Seconds that a server may be silent."""


def download(url: str, path: Path, show: Callable[[int, int], object]) -> None:
    """Write what a URL gives to a file; show: called with the bytes so far and their number, 0 if unknown.

    Raises CheckpointError, with the URL, for whatever goes wrong.
    """
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer, path.open("wb") as file:  # noqa: S310 - http, https
            total = int(answer.headers.get("Content-Length") or 0)
            if total > MAX_BYTES:
                raise CheckpointError(f"{url}: {total:,} bytes, but an archive has at most {MAX_BYTES:,}")
            got = 0
            while chunk := answer.read(CHUNK_BYTES):
                got += file.write(chunk)
                if got > MAX_BYTES:
                    raise CheckpointError(f"{url}: more than {MAX_BYTES:,} bytes, which an archive has at most")
                show(got, total)
    except urllib.error.HTTPError as error:
        raise CheckpointError(f"{url}: the server answered {error.code} {error.reason}") from error
    except OSError as error:
        raise CheckpointError(f"{url}: {getattr(error, 'reason', None) or error}") from error
    if total and got != total:
        raise CheckpointError(f"{url}: the connection ended after {got:,} of {total:,} bytes; try again")
