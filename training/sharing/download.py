"""An archive from a web server, in a file. Needs no torch."""

import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path

from training.files import CheckpointError
from training.sharing.parts import MAX_BYTES

CHUNK_BYTES = 2**20
TIMEOUT = 60.0
"""Seconds that a server may be silent."""


def download(url: str, path: Path, show: Callable[[int, int], object]) -> None:
    """Write what a URL gives to a file; show: called with the bytes so far and their number, 0 if unknown.

    Raises CheckpointError, with the URL, for whatever goes wrong.
    """
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer, path.open("wb") as file:  # noqa: S310 - http, https
            total = _length(answer.headers.get("Content-Length", ""))
            if total > MAX_BYTES:
                raise CheckpointError(f"{url}: {total:,} bytes, but an archive has at most {MAX_BYTES:,}")
            got = 0
            while chunk := answer.read(CHUNK_BYTES):
                got += file.write(chunk)
                if got > MAX_BYTES:
                    raise CheckpointError(f"{url}: more than {MAX_BYTES:,} bytes, which an archive has at most")
                show(got, total)
    except CheckpointError:
        raise
    except urllib.error.HTTPError as error:
        raise CheckpointError(f"{url}: the server answered {error.code} {error.reason}") from error
    except (OSError, HTTPException, ValueError) as error:  # ValueError: of an address such as http://[::1
        raise CheckpointError(f"{url}: {getattr(error, 'reason', None) or error}") from error
    if total and got != total:
        raise CheckpointError(f"{url}: the connection ended after {got:,} of {total:,} bytes; try again")


def _length(given: str) -> int:
    """Return the number of bytes that a server announces, 0 if it announces none."""
    return int(given) if given.isascii() and given.isdigit() and len(given) < len(str(2**63)) else 0
