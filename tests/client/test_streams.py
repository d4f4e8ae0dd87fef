"""Streams: frames in order, sent again after a loss, each answered once."""

import asyncio
from contextlib import suppress
from typing import Any

import msgpack
import numpy as np
import pytest

from engram_client import (
    AnswerLost,
    AsyncSession,
    Conflict,
    EngramClientError,
    InvalidRequest,
    ServerError,
)
from engram_client.errors import Lost
from tests.client.inputs import MODEL, sequence
from tests.client.scripted import GREETING, carried_out, scripted


def test_refused_frame_ends_those_behind_it_only(api):
    good, bad = sequence(1), sequence(1)[:, :3]
    taken = []
    with api.open(MODEL).stream() as stream:
        with pytest.raises(InvalidRequest, match=r"inputs\[0\]: expected 10 numbers, got 3"):
            taken += stream.map([good, good, bad, good, good])
        reached = stream.run(good).step
    assert reached == 3


def test_stream_left_early_carries_out_its_frames(api):
    session = api.open(MODEL)
    with session.stream() as stream:
        next(stream.map([sequence(1)] * 9, window=4))
    assert session.step == api.session(session.id).step == 4


@pytest.mark.parametrize(
    ("dtype", "scale", "data_bytes"), [("float16", 1.0, 2), (">f2", 1.0, 2), ("int16", 0.1, 2), ("float64", 1.0, 4)]
)
def test_stream_sends_inputs_of_two_bytes_as_they_are(api, monkeypatch, dtype, scale, data_bytes):
    sent: list[Any] = []
    pack = msgpack.packb
    monkeypatch.setattr(msgpack, "packb", lambda document: sent.append(document) or pack(document))
    inputs = (sequence(2) * 3).astype(dtype)
    with api.open("dnc-copy").stream(scale=scale) as stream:
        outputs = stream.run(inputs).outputs
    assert len(sent[0]["inputs"]["data"]) == data_bytes * inputs.size
    same = inputs.astype(np.float32) * np.float32(scale)
    assert outputs.tolist() == api.open("dnc-copy").run(same).outputs.tolist()


def test_stream_may_have_its_answers_sent_in_float16(api):
    inputs = sequence(2)
    full = api.open("dnc-copy").run(inputs, ["usage"])
    with api.open("dnc-copy").stream(dtype="float16") as stream:
        half = stream.run(inputs, ["usage"])
    for came, whole in ((half.outputs, full.outputs), (half.trace["usage"], full.trace["usage"])):
        assert came.dtype == np.float32
        assert came.tolist() == whole.astype(np.float16).tolist()
        assert came.tolist() != whole.tolist()


def test_scale_that_is_none_is_refused_by_the_server(api):
    with api.open("dnc-copy").stream(scale=0.0) as stream, pytest.raises(InvalidRequest, match="scale of an array"):
        stream.run(sequence(2).astype(np.int16))


def test_stream_may_be_entered_again(api):
    session = api.open(MODEL)
    stream = session.stream()
    with stream:
        first = stream.run(sequence(3))
    session.reset()
    with pytest.raises(RuntimeError, match=r"with session\.stream"):
        stream.run(sequence(1))
    with stream:
        assert np.array_equal(stream.run(sequence(3)).outputs, first.outputs)


def test_stream_that_is_left_in_an_error_answers_no_more(api):
    stream = api.open(MODEL).stream()
    with suppress(ZeroDivisionError), stream:
        answers = stream.map([sequence(1)] * 3)
        next(answers)
        raise ZeroDivisionError
    with pytest.raises(EngramClientError, match="stream_left"):
        next(answers)


def test_stream_answers_calls_within_a_map_each_with_its_own(api):
    inputs = sequence(8)
    whole = api.infer(MODEL, inputs).outputs
    with api.open(MODEL).stream() as stream:
        answers = stream.map(inputs[:7, np.newaxis], window=7)
        first = next(answers)
        last = stream.run(inputs[7:])
        rest = list(answers)
    assert [stepped.step for stepped in [first, *rest, last]] == list(range(1, 9))
    assert np.allclose(np.concatenate([stepped.outputs for stepped in [first, *rest, last]]), whole, atol=1e-6)


def test_stream_goes_on_after_a_rewind(api):
    session = api.open(MODEL)
    with session.stream() as stream:
        whole = [stream.run(step[np.newaxis]).outputs for step in sequence(5)]
        session.rewind(2)
        again = [stream.run(step[np.newaxis]) for step in sequence(5)[2:]]
    assert [stepped.step for stepped in again] == [3, 4, 5]
    assert np.allclose([stepped.outputs for stepped in again], whole[2:], atol=1e-6)


def streamed(session: AsyncSession, count: int) -> list[list[list[float]]]:
    """Return what so many frames gave, all of them under way at a time."""

    async def run() -> list[list[list[float]]]:
        async with session.stream() as stream:
            return [stepped.outputs.tolist() async for stepped in stream.map([[[0.0]]] * count, window=count)]

    return asyncio.run(run())


def test_frames_without_an_answer_are_sent_again_in_order():
    session, script = scripted(
        [GREETING, carried_out(0), Lost("reset")],
        [GREETING | {"step": 2, "seq": 1}, carried_out(1), Lost("reset")],
        Lost("refused"),
        [GREETING | {"step": 2, "seq": 1}, carried_out(2)],
    )
    assert streamed(session, 3) == [[[0.5]], [[1.5]], [[2.5]]]
    assert [frame["seq"] for frame in script.frames] == [0, 1, 2, 1, 2, 2]
    assert (session.step, len(script.pauses)) == (3, 3)


def test_stream_numbers_on_from_the_last_frame_of_the_session():
    session, script = scripted([GREETING | {"step": 30, "seq": 7}, carried_out(8)])
    streamed(session, 1)
    assert [frame["seq"] for frame in script.frames] == [8]


@pytest.mark.parametrize("seq", [None, 0, 3])
def test_greeting_that_cannot_be_is_a_conflict(seq):
    lost = [GREETING, carried_out(0), carried_out(1), Lost("reset")]
    session, script = scripted(lost, [GREETING | {"step": 1, "seq": seq}])
    with pytest.raises(Conflict, match=f"at step 1 after frame {seq}, but a frame from 1 to 2 was expected"):
        streamed(session, 3)
    assert [frame["seq"] for frame in script.frames] == [0, 1, 2]


def test_answer_that_can_no_longer_be_computed_is_an_error():
    session, _ = scripted([GREETING, {"type": "result", "seq": 0, "step": 1, "duplicate": True}])
    with pytest.raises(AnswerLost, match="frame 0 was carried out"):
        streamed(session, 1)
    assert session.step == 1


def test_busy_server_on_a_stream_is_tried_again():
    busy = {"type": "error", "status": 503, "code": "queue_full", "detail": "try again later"}
    session, script = scripted([busy], [GREETING, busy], [GREETING, carried_out(0)])
    assert streamed(session, 1) == [[[0.5]]]
    assert [frame["seq"] for frame in script.frames] == [0, 0]


def test_server_error_on_a_stream_is_raised():
    failed = {"type": "error", "status": 500, "code": "step_failed", "detail": "the back end failed"}
    session, _ = scripted([GREETING, failed])
    with pytest.raises(ServerError, match="step_failed"):
        streamed(session, 1)
