"""Sessions over HTTP: steps are taken once, and the past is read."""

import asyncio
import json

import httpx
import numpy as np
import pytest

from engram_client import (
    Conflict,
    InvalidRequest,
    NotFound,
    SessionGone,
    Unreachable,
)
from engram_client.errors import Lost
from engram_client.wires import Answer
from tests.client.inputs import MODEL, sequence
from tests.client.scripted import lines, refusal, scripted


def test_session_over_http_and_websocket_is_one_sequence(api):
    inputs = sequence(12)
    session = api.open(MODEL)
    parts = [session.run(inputs[:4], ["usage"])]
    with session.stream() as stream:
        parts += [stream.run(inputs[4:7], ["usage"])]
        parts += stream.map([inputs[7:9], inputs[9:10]], ["usage"])
    parts += [session.run(inputs[10:], ["usage"])]
    whole = api.infer(MODEL, inputs, ["usage"])
    assert [part.step for part in parts] == [4, 7, 9, 10, 12]
    assert np.allclose(np.concatenate([part.outputs for part in parts]), whole.outputs, atol=1e-6)
    assert np.allclose(np.concatenate([part.trace["usage"] for part in parts]), whole.trace["usage"], atol=1e-6)
    assert (session.step, api.session(session.id).step) == (12, 12)


def test_session_of_another_memory_size_shows_its_state(api):
    session = api.open(MODEL, memory_size=5)
    session.run(sequence(3))
    state = session.state(["memory", "usage"])
    assert (session.memory_size, {name: leaf.shape for name, leaf in state.items()}) == (
        5,
        {"memory": (5, 16), "usage": (5,)},
    )
    assert httpx.get(f"{api._client.url}/sessions/{session.id}/state").json()["state"]["usage"] == pytest.approx(
        state["usage"].tolist()
    )


def test_reset_session_begins_again(api):
    session = api.open(MODEL)
    first = session.run(sequence(4))
    session.reset()
    assert session.step == 0
    assert np.array_equal(session.run(sequence(4)).outputs, first.outputs)


def test_refused_inputs_name_the_place(api):
    session = api.open(MODEL)
    with pytest.raises(InvalidRequest) as refused:
        session.run(sequence(2)[:, :9])
    assert (refused.value.code, refused.value.problem["place"]) == ("invalid_input", "inputs[0]")
    assert str(refused.value) == "inputs[0]: expected 10 numbers, got 9 (invalid_input)"
    assert session.run(sequence(1)).step == 1


def test_steps_over_http_may_be_of_float16(api):
    inputs = sequence(2).astype(np.float16) / 3
    stepped = api.open("dnc-copy").run(inputs)
    assert stepped.outputs.tolist() == api.open("dnc-copy").run(inputs.astype(np.float32)).outputs.tolist()


def test_many_sessions_are_stepped_as_each_alone(api):
    wanted = {api.open(model): sequence(steps, steps) for model, steps in [(MODEL, 2), ("lstm-copy", 5), (MODEL, 2)]}
    first, other, second = wanted
    alike = api.step_many({first: wanted[first], second: sequence(2, 9)}, ["usage"])
    later = api.step_many(wanted)
    assert (first.step, other.step, second.step, later[other].step) == (4, 5, 4, 5)
    for session, past in (
        (first, [sequence(2, 2)] * 2),
        (other, [sequence(5, 5)]),
        (second, [sequence(2, 9), sequence(2, 2)]),
    ):
        whole = api.infer(session.model, np.concatenate(past)).outputs
        assert np.allclose(later[session].outputs, whole[-len(past[-1]) :], atol=1e-6)
    assert np.allclose(
        alike[second].trace["usage"], api.infer(MODEL, sequence(2, 9), "usage").trace["usage"], atol=1e-6
    )


def test_session_that_fails_among_many_fails_alone(api):
    gone, moved, well = (api.open(MODEL) for _ in range(3))
    gone.delete()
    api.session(moved.id).run(sequence(1))
    done = api.step_many(dict.fromkeys((gone, moved, well), sequence(3)))
    assert {session: type(error) for session, error in done.errors.items()} == {gone: SessionGone, moved: Conflict}
    assert (done[well].step, [session.step for session in (gone, moved, well)]) == (3, [0, 0, 3])
    with pytest.raises(Conflict, match="step_conflict"):
        done[moved]
    with pytest.raises(InvalidRequest, match=r"inputs\[1\]"):
        api.step_many({well: sequence(3), moved: sequence(3)[:, :4]})
    assert (api.session(well.id).step, dict(api.step_many({}))) == (3, {})


def test_conflict_with_another_client_has_the_step(api):
    session = api.open(MODEL)
    api.session(session.id).run(sequence(3))
    with pytest.raises(Conflict) as conflict:
        session.run(sequence(3))
    assert (conflict.value.code, conflict.value.problem["step"], session.step) == ("step_conflict", 3, 0)


def test_session_with_forced_gates_is_opened_forked_and_found_again(api):
    session = api.open(MODEL, force={"write_gate": [0.0]})
    trace = session.run(sequence(4), ["write_gate"]).trace["write_gate"]
    one = api.infer(MODEL, sequence(4), ["write_gate"], force={"write_gate": [0.0]})
    several = api.infer_many(MODEL, [sequence(4)] * 2, ["write_gate"], force={"write_gate": [0.0]})
    assert not any(found.any() for found in (trace, one.trace["write_gate"], several[1].trace["write_gate"]))
    forks = session.fork(), session.fork(force={"write_gate": [1.0]}), session.fork(force={})
    assert [fork.force for fork in forks] == [{"write_gate": [0.0]}, {"write_gate": [1.0]}, None]
    assert api.session(session.id).force == session.force == {"write_gate": [0.0]}
    assert api.restore(session.snapshot()).force == session.force


def test_past_is_read_forked_and_gone_back_to(api):
    inputs = sequence(9)
    session = api.open(MODEL)
    states = [session.state()]
    for step in inputs:
        session.run(step[np.newaxis])
        states.append(session.state())
    assert np.allclose(session.state(["memory"], step=4)["memory"], states[4]["memory"], atol=1e-6)
    fork = session.fork(step=6)
    assert (fork.step, session.fork().step) == (6, 9)
    session.rewind(4)
    assert (session.step, api.session(session.id).step) == (4, 4)
    session.rewind(9)
    session.rewind(3)
    for one in (session, fork):
        one.run(inputs[one.step :])
        assert all(np.allclose(leaf, states[9][name], atol=1e-5) for name, leaf in one.state().items())


def test_recording_has_inputs_outputs_and_traces(api):
    inputs = sequence(5)
    session = api.open(MODEL)
    stepped = session.run(inputs, ["usage"])
    past = list(session.recording(trace=["usage"]))
    assert [recorded.step for recorded in past] == [1, 2, 3, 4, 5]
    assert np.array_equal([recorded.inputs for recorded in past], inputs)
    assert np.allclose([recorded.outputs for recorded in past], stepped.outputs, atol=1e-6)
    assert np.allclose([recorded.trace["usage"] for recorded in past], stepped.trace["usage"], atol=1e-6)
    assert [recorded.step for recorded in session.recording(2, 4)] == [3, 4]


def test_recording_is_read_in_pages(api, monkeypatch):
    monkeypatch.setattr("engram_client.sessions.PAGE", 4)
    session = api.open(MODEL)
    session.run(sequence(10))
    assert [recorded.step for recorded in session.recording()] == list(range(1, 11))


def test_steps_whose_answer_was_lost_are_found_in_the_recording():
    conflict = refusal(409, "step_conflict", step=2)
    session, script = scripted(Lost("reset"), conflict, lines([0.1], [1.0]))
    stepped = asyncio.run(session.run([[0.1], [1]], ["gate"]))
    assert (stepped.outputs.tolist(), stepped.step, session.step) == ([[1.5], [2.5]], 2, 2)
    assert stepped.trace["gate"].tolist() == [[0.25], [0.25]]
    assert script.requests[0] == script.requests[1]
    assert script.requests[2].query == {"from": 0, "to": 2, "trace": "gate"}


def test_steps_of_somebody_else_are_a_conflict():
    conflict = refusal(409, "step_conflict", step=2)
    session, _ = scripted(Lost("reset"), conflict, lines([0.0], [0.5]))
    with pytest.raises(Conflict):
        asyncio.run(session.run([[0], [1]]))
    assert session.step == 0


def test_conflict_at_the_first_try_is_certain():
    session, script = scripted(refusal(409, "step_conflict", step=2))
    with pytest.raises(Conflict):
        asyncio.run(session.run([[0], [1]]))
    assert len(script.requests) == 1


def test_conflict_after_no_connection_is_certain():
    session, script = scripted(Lost("refused", reached=False), refusal(409, "step_conflict", step=2))
    with pytest.raises(Conflict):
        asyncio.run(session.run([[0], [1]]))
    assert len(script.requests) == 2


def test_steps_after_which_others_came_are_still_found():
    session, _ = scripted(Lost("reset"), refusal(409, "step_conflict", step=5), lines([0.0], [1.0]))
    assert asyncio.run(session.run([[0], [1]])).step == 2


def test_recording_that_is_no_longer_kept_leaves_the_conflict():
    session, _ = scripted(Lost("reset"), refusal(409, "step_conflict", step=2), refusal(404, "step_not_kept"))
    with pytest.raises(Conflict) as conflict:
        asyncio.run(session.run([[0], [1]]))
    assert isinstance(conflict.value.__cause__, NotFound)


def test_recording_that_breaks_off_is_read_again_or_refused():
    broken = {"error": {"status": 503, "code": "store_failed", "detail": "so it is"}}
    gone = {"error": {"status": 409, "code": "step_not_kept", "detail": "so it is"}}
    whole = lines([0.0], [1.0])
    first = whole.content.splitlines()[0]
    halves = [Answer(200, {}, first + b"\n" + json.dumps(end).encode()) for end in (broken, gone)]
    session, _ = scripted(halves[0], whole, halves[1])

    async def read() -> list[int]:
        return [recorded.step async for recorded in session.recording(0, 2)]

    assert asyncio.run(read()) == [1, 2]
    with pytest.raises(Conflict, match="step_not_kept"):
        asyncio.run(read())


def test_call_that_was_unreachable_may_be_made_again():
    session, script = scripted(Lost("reset"), timeout=1e-9)
    with pytest.raises(Unreachable):
        asyncio.run(session.run([[0], [1]]))
    session._client.timeout = 60
    script.events.extend([refusal(409, "step_conflict", step=2), lines([0.0], [1.0])])
    assert asyncio.run(session.run([[0], [1]])).outputs.tolist() == [[1.5], [2.5]]


def test_deleting_again_finds_it_deleted():
    gone = refusal(410, "session_gone", reason="deleted")
    session, _ = scripted(Lost("reset"), gone, gone)
    asyncio.run(session.delete())
    with pytest.raises(SessionGone):
        asyncio.run(session.delete())
