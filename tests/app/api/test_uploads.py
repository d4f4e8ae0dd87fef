"""Uploads: whole however their files take the bytes, and refused where there can be no file."""

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.api.uploads import IN_MEMORY, Uploads
from app.errors import StoreFailed

LARGE = bytes(range(256)) * (3 * IN_MEMORY // 256 + 1)


class _Slow(io.BytesIO):
    """A file that takes a part of the bytes in each call, as one does on a disk that is nearly full."""

    def write(self, data: "memoryview | bytes") -> int:  # type: ignore[override]
        return super().write(data[:100_003])


async def chunks(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 2**16):
        yield data[start : start + 2**16]


def received(uploads: Uploads, data: bytes) -> bytes:
    async def receive() -> bytes:
        async with uploads.receive(chunks(data)) as found:
            return found

    return asyncio.run(receive())


@pytest.mark.parametrize("size", [0, 1, IN_MEMORY, IN_MEMORY + 1, len(LARGE)])
def test_upload_is_received_whole(tmp_path, size):
    assert received(Uploads(tmp_path), LARGE[:size]) == LARGE[:size]
    assert not list(tmp_path.iterdir())


def test_upload_is_whole_where_its_file_takes_parts(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: _Slow())
    assert received(Uploads(tmp_path), LARGE) == LARGE


def test_large_upload_without_a_file_is_refused():
    uploads = Uploads(Path("/nowhere"))
    assert received(uploads, b"small") == b"small"
    with pytest.raises(StoreFailed, match="No such file"):
        received(uploads, LARGE)
