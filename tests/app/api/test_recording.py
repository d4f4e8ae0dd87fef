"""Recordings as lines of JSON."""

import json
from collections.abc import AsyncIterator

import numpy as np

from app.access.keys import SCOPES, Caller
from app.api.recording import recording_lines
from app.engine.run import Result
from app.errors import InvalidKey
from app.sessions.past import Piece
from tests.app.asynchronous import run


def piece(step: int) -> Piece:
    numbers = np.zeros((1, 2), np.float32)
    return Piece(step, numbers, Result(numbers, {}), [None])


async def endless() -> AsyncIterator[Piece]:
    step = 0
    while True:
        yield piece(step := step + 1)


def test_recording_ends_when_the_key_is_revoked():
    caller, lines = Caller("lab", frozenset(SCOPES)), []

    async def test() -> None:
        async for line in recording_lines(piece(0), endless(), caller):
            lines.append(json.loads(line))
            if len(lines) == 3:
                caller.end(InvalidKey("revoked"))

    run(test())
    assert [line.get("step") for line in lines] == [1, 2, 3, None]
    assert lines[3]["error"]["code"] == "invalid_key"
