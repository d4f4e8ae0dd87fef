"""Steps of many sessions in one request: what is asked for again, and what is found in recordings."""

import asyncio
from typing import Any

import msgpack
import pytest

from engram_client import AsyncClient, AsyncSession, Conflict, NotFound, Unreachable
from engram_client.errors import Lost
from engram_client.wires import Answer
from tests.client.scripted import OPENED, Script, lines, refusal


def answer(*steps: int | None, **errors: dict[str, Any]) -> Answer:
    """Return an answer that puts sessions at these steps; None fails, with the problems in `errors`, in order."""
    failed = [index for index, step in enumerate(steps) if step is None]
    problems = [{"index": index, "detail": "so"} | error for index, error in zip(failed, errors.values(), strict=True)]
    outputs = [None if step is None else [[step + 0.5]] for step in steps]
    document = {"steps": steps, "outputs": outputs, "trace": {}, "errors": problems}
    return Answer(200, {}, msgpack.packb(document))


HELD = {"status": 503, "code": "session_held"}
ELSEWHERE = {"status": 409, "code": "step_conflict", "step": 1}


def two(*events: Any) -> tuple[AsyncClient, AsyncSession, AsyncSession, Script]:
    script = Script(*events)
    client = AsyncClient("http://nowhere", 5.0, wire=script)
    return client, *(AsyncSession(client, OPENED | {"id": name}) for name in "ab"), script


def asked(script: Script) -> list[tuple[list[str], list[int]]]:
    """Return the sessions and steps of each request for many."""
    documents = [msgpack.unpackb(request.content) for request in script.requests if request.path == "/steps"]
    return [(document["sessions"], document["if_steps"]) for document in documents]


def test_only_sessions_without_outcome_are_asked_again():
    client, a, b, script = two(answer(1, None, b=HELD), answer(1))
    done = asyncio.run(client.step_many({a: [[0]], b: [[0]]}))
    assert asked(script) == [(["a", "b"], [0, 0]), (["b"], [0])]
    assert (done[a].step, done[b].outputs.tolist(), a.step, b.step) == (1, [[1.5]], 1, 1)


def test_steps_whose_answer_is_lost_come_from_the_recording():
    client, a, b, script = two(Lost("reset"), answer(None, 1, a=ELSEWHERE), lines([0.25]))
    done = asyncio.run(client.step_many({a: [[0.25]], b: [[0]]}))
    assert (done[a].outputs.tolist(), done.errors, a.step, script.requests[-1].path) == (
        *([[1.5]], {}, 1),
        "/sessions/a/recording",
    )


def test_steps_of_another_client_are_a_conflict():
    for events in ((answer(None, 1, a=ELSEWHERE),), (Lost("reset"), answer(None, 1, a=ELSEWHERE), lines([0.5]))):
        client, a, b, _ = two(*events)
        done = asyncio.run(client.step_many({a: [[0.25]], b: [[0]]}))
        assert (type(done.errors[a]), a.step, b.step) == (Conflict, 0, 1)


def test_recording_that_cannot_be_read_fails_one_session():
    client, a, b, _ = two(Lost("reset"), answer(None, 1, a=ELSEWHERE), refusal(500, "session_damaged"))
    done = asyncio.run(client.step_many({a: [[0]], b: [[0]]}))
    assert (done.errors[a].code, done[b].step) == ("session_damaged", 1)


def test_call_that_was_interrupted_can_be_made_again():
    client, a, b, _ = two(answer(1, None, b=HELD), asyncio.CancelledError(), answer(None, 1, a=ELSEWHERE), lines([0]))
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(client.step_many({a: [[0]], b: [[0]]}))
    assert (a.step, b.step) == (0, 0)
    done = asyncio.run(client.step_many({a: [[0]], b: [[0]]}))
    assert (done.errors, a.step, b.step) == ({}, 1, 1)


def test_time_that_is_over_is_the_error_of_those_left():
    client, a, b, _ = two(answer(1, None, b=HELD | {"retry_after": 9}))
    done = asyncio.run(client.step_many({a: [[0]], b: [[0]]}))
    assert (a.step, list(done.errors), type(done.errors[b])) == (1, [b], Unreachable)
    client, a, b, _ = two(answer(None, None, a=HELD | {"retry_after": 9}, b=HELD))
    with pytest.raises(Unreachable):
        asyncio.run(client.step_many({a: [[0]], b: [[0]]}))


def test_missing_session_and_session_of_another_client():
    client, a, b, _ = two(answer(None, 1, a={"status": 404, "code": "session_not_found"}))
    assert type(asyncio.run(client.step_many({a: [[0]], b: [[0]]})).errors[a]) is NotFound
    with pytest.raises(ValueError, match="session a: expected one of this client of http://nowhere"):
        asyncio.run(two()[0].step_many({a: [[0]]}))
    for inputs in (None, [a], {a.id: [[0]]}):
        with pytest.raises(ValueError, match=r"step_many: expected \{AsyncSession: inputs\}, got "):
            asyncio.run(client.step_many(inputs))
