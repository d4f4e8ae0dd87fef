"""Inputs before they are sent, and answers of servers that are not Engram."""

import asyncio

import msgpack
import numpy as np
import pytest

from engram_client import (
    AsyncSession,
    EngramClientError,
    Recorded,
)
from engram_client.messages import read_frame
from engram_client.wires import Answer
from tests.client.inputs import MODEL, WIDTH
from tests.client.scripted import scripted


@pytest.mark.parametrize("number", [1e39, float("nan")])
def test_inputs_that_are_not_finite_are_not_sent(api, number):
    with pytest.raises(ValueError, match=r"inputs\[1\]\[0\]: expected a finite number within float32"):
        api.infer(MODEL, [[0.0] * WIDTH, [number] * WIDTH])


@pytest.mark.parametrize(
    "inputs",
    [
        np.zeros((1, WIDTH), complex),
        np.zeros((1, WIDTH), "datetime64[s]"),
        np.ma.masked_all((1, WIDTH)),
        [["0"] * WIDTH],
        [[10**400] * WIDTH],
        [[0] * WIDTH, [0]],
        {"a": 1},
    ],
)
def test_inputs_that_are_no_real_numbers_are_not_sent(api, inputs):
    with pytest.raises(ValueError, match="inputs: expected real numbers: "):
        api.infer(MODEL, inputs)


@pytest.mark.parametrize("content", [b"<html>hello</html>", b"", b"[]", b"null", b"{}", b'{"step": ', b"[" * 9999])
def test_answer_of_another_server_is_an_error_of_the_client(content):
    async def recording(session: AsyncSession) -> list[Recorded]:
        return [recorded async for recorded in session.recording()]

    calls = [AsyncSession.reset, AsyncSession.state, AsyncSession.fork, lambda session: session.run([[0]]), recording]
    for call in calls:
        session, _ = scripted(Answer(200, {}, content))
        with pytest.raises(EngramClientError) as refusal:
            asyncio.run(call(session))
        assert refusal.value.code == "unreadable_answer"


@pytest.mark.parametrize("frame", [b"", b"\xc1", b"\x80", b"\x93\x01", b"\x01", msgpack.packb({"type": "error"})])
def test_frame_of_another_server_is_an_error_of_the_client(frame):
    with pytest.raises(EngramClientError) as refusal:
        read_frame(frame)
    assert refusal.value.code == "unreadable_answer"
