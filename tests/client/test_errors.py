"""Problem documents as errors."""

import asyncio

import pytest

from engram_client import (
    Conflict,
    EngramClientError,
    Forbidden,
    InvalidKey,
    InvalidRequest,
    NotFound,
    ServerError,
    SessionGone,
)
from engram_client.wires import Answer
from tests.client.scripted import refusal, scripted


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (308, EngramClientError),
        (400, InvalidRequest),
        (401, InvalidKey),
        (403, Forbidden),
        (404, NotFound),
        (409, Conflict),
        (410, SessionGone),
        (413, InvalidRequest),
        (415, InvalidRequest),
        (418, EngramClientError),
        (421, Forbidden),
        (422, InvalidRequest),
        (500, ServerError),
    ],
)
def test_problem_becomes_an_error_by_its_status(status, kind):
    session, _ = scripted(refusal(status, "some_code", place="here"), Answer(status, {}, b"<html>no</html>"))
    with pytest.raises(EngramClientError) as raised:
        asyncio.run(session.state())
    assert (type(raised.value), raised.value.status, raised.value.code) == (kind, status, "some_code")
    assert (raised.value.detail, raised.value.problem["place"]) == ("so it is", "here")
    with pytest.raises(kind, match=f"HTTP status {status}: <html>no</html> \\(http_{status}\\)"):
        asyncio.run(session.state())
