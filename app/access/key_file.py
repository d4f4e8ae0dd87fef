"""The key in a file, such as a Docker secret."""

import re
from collections.abc import Sequence
from pathlib import Path

from app.access.keys import FILE_ID, SCOPES, Key, digest_of, id_of
from app.errors import StoreFailed
from app.tenants import DEFAULT

FORM = re.compile(rb"[A-Za-z0-9._~-]{32,512}")

MOST_BYTES = 4096
"""Bytes that are read of the file, at most."""


class KeyFile:
    """A file with one key, which has all scopes for the default tenant; white space around it does not count."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def list(self) -> Sequence[Key]:
        """Return the key that is in the file now. Raises StoreFailed where there is none."""
        try:
            with self._path.open("rb") as file:
                token = file.read(MOST_BYTES).strip()
        except OSError as error:
            raise StoreFailed(f"key_file {self._path}: {error.strerror}") from error
        if not FORM.fullmatch(token):
            raise StoreFailed(
                f"key_file {self._path}: expected one key, 32 to 512 letters, digits and ._~- and nothing else, got "
                f"{len(token)} bytes; make one with: openssl rand -hex 32 > {self._path}"
            )
        if id_of(token) != FILE_ID.encode():
            raise StoreFailed(
                f"key_file {self._path}: it holds a key of engram keys, which is in the store already: put another key "
                "into the file, or leave key_file out"
            )
        return [Key(FILE_ID, digest_of(token), DEFAULT, frozenset(SCOPES))]

    def close(self) -> None:
        """Do nothing: the file is open only while it is read."""
