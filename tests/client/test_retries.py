"""Pauses between tries."""

import asyncio

from engram_client.errors import Lost
from engram_client.wires import Answer
from tests.client.scripted import STEPPED, ok, refusal, scripted


def test_pauses_grow_and_are_as_long_as_the_server_asks():
    busy = refusal(503, "queue_full")
    session, script = scripted(*[Lost("gone")] * 8, busy, Answer(502, {}, b"<html>"), ok(STEPPED))
    assert asyncio.run(session.run([[0], [1]])).step == 2
    lows = [0.025 * 2**n for n in range(6)]
    assert all(low <= pause <= 2 * low for pause, low in zip(script.pauses[:6], lows, strict=True))
    assert all(1 <= pause <= 2 for pause in script.pauses[6:8])
    assert (script.pauses[8], len(script.pauses)) == (7, 10)
