"""Sequences of NVIDIA's client on a real server: begun, gone on with, ended, and found as sessions."""

import signal
from contextlib import ExitStack

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from tests.app.api.v2.triton import connected, inferred, numbers, tensor, wanted
from tests.app.harness import Server, running_server

MODEL = "dnc-copy"


def step(client, inputs, sequence, start=False, end=False, model=MODEL, **more):
    """Send the next steps of a sequence; return the outputs, and the parameters of the answer."""
    flags = {"sequence_start": start, "sequence_end": end}
    answer = client.infer(model, tensor(inputs), sequence_id=sequence, **flags, **more)
    return answer.as_numpy("outputs"), answer.get_response()["parameters"]


def refused(client, *arguments, **more):
    """Return the status and the text of the error of a step that is refused."""
    with pytest.raises(InferenceServerException) as error:
        step(client, *arguments, **more)
    return int(error.value.status()), error.value.message()


def test_steps_of_a_sequence_are_those_of_infer(triton, server):
    inputs = numbers(6)
    taken = [step(triton, inputs[t : t + 2], 42, start=t == 0, end=t == 4) for t in (0, 2, 4)]
    assert np.array_equal(np.concatenate([outputs for outputs, _ in taken]), inferred(server.url, inputs)["outputs"])
    said = [[more[name] for name in ("sequence_id", "sequence_start", "sequence_end", "step")] for _, more in taken]
    assert said == [[42, True, False, 2], [42, False, False, 4], [42, False, True, 6]]
    assert not any(more["sequence_restarted"] for _, more in taken)


def test_sequence_is_a_session_until_it_ends(triton, client):
    _, said = step(triton, numbers(3), 43, start=True)
    session = said["session"]
    assert session.startswith("sequence-43-")
    assert session in [listed["id"] for listed in client.get(f"/sessions?model={MODEL}").json()]
    assert client.get(f"/sessions/{session}").json()["step"] == 3
    assert client.get(f"/sessions/{session}/state?names=usage&step=2").json()["step"] == 2
    step(triton, numbers(1), 43, end=True)
    assert client.get(f"/sessions/{session}").json()["reason"] == "deleted"


def test_sequence_that_has_not_begun_or_has_ended_is_refused(triton, client):
    words = "sequence 44 of dnc-copy has not begun, or has ended: its first request must have sequence_start, true"
    assert refused(triton, numbers(1), 44) == refused(triton, numbers(1), 44, end=True) == (400, words)
    step(triton, numbers(1), 44, start=True, end=True)
    assert refused(triton, numbers(1), 44) == (400, words)
    _, said = step(triton, numbers(1), 44, start=True)
    client.delete(f"/sessions/{said['session']}")
    assert refused(triton, numbers(1), 44) == (400, words)


def test_start_of_a_sequence_under_way_begins_it_anew(triton, server, client):
    inputs = numbers(2)
    first = step(triton, inputs, 45, start=True)[1]
    outputs, second = step(triton, inputs, 45, start=True)
    assert (first["sequence_restarted"], second["sequence_restarted"], second["step"]) == (False, True, 2)
    assert np.array_equal(outputs, inferred(server.url, inputs)["outputs"])
    assert client.get(f"/sessions/{first['session']}").status_code == 410
    assert step(triton, inputs, 45, end=True)[1] == second | {
        "sequence_start": False,
        "sequence_end": True,
        "sequence_restarted": False,
        "step": 4,
    }
    assert not step(triton, inputs, 45, start=True, end=True)[1]["sequence_restarted"]


def test_sequences_of_other_ids_and_models_are_others(triton):
    ids = [46, "46", 2**64 - 1, "a b/c\nü" * 30]
    said = [step(triton, numbers(1), one, start=True)[1] for one in ids]
    other = step(triton, numbers(1), 46, start=True, model="lstm-copy")[1]
    assert len({each["session"] for each in [*said, other]}) == 5
    assert [each["sequence_id"] for each in said] == ids
    assert [step(triton, numbers(1), one)[1]["step"] for one in ids] == [2] * 4


def test_eight_sequences_at_once_do_not_mix(triton, server):
    inputs = {sequence: numbers(5, sequence) for sequence in range(100, 108)}
    outputs = {sequence: [] for sequence in inputs}
    for t in range(5):
        flags = {"sequence_start": t == 0, "sequence_end": t == 4}
        asked = {
            sequence: triton.async_infer(MODEL, tensor(steps[None, t : t + 1]), sequence_id=sequence, **flags)
            for sequence, steps in inputs.items()
        }
        for sequence, request in asked.items():
            outputs[sequence].append(request.get_result().as_numpy("outputs")[0, 0])
    for sequence, steps in inputs.items():
        assert np.array_equal(outputs[sequence], inferred(server.url, steps)["outputs"])


def test_traces_of_a_sequence_come_with_its_step(triton, server):
    inputs = numbers(3)
    step(triton, inputs[:2], 47, start=True)
    asked = {"sequence_id": 47, "sequence_end": True, "outputs": wanted("read_weights")}
    answer = triton.infer(MODEL, tensor(inputs[None, 2:]), **asked)
    assert np.array_equal(
        answer.as_numpy("read_weights")[0], inferred(server.url, inputs, ["read_weights"])["read_weights"][2:]
    )


def test_memory_size_is_chosen_as_a_sequence_begins(triton, client):
    _, said = step(triton, numbers(1), 48, start=True, parameters={"memory_size": 64})
    assert client.get(f"/sessions/{said['session']}").json()["memory_size"] == 64
    status, words = refused(triton, numbers(1), 48, parameters={"memory_size": 32})
    assert (status, "keeps the memory that it began with" in words) == (400, True)
    assert refused(triton, numbers(1), 48, start=True, parameters={"memory_size": 0})[0] == 400
    assert step(triton, numbers(1), 48)[1]["step"] == 2


def test_step_that_was_answered_is_not_taken_twice(triton):
    step(triton, numbers(2), 49, start=True, parameters={"if_step": 0})
    step(triton, numbers(1), 49, parameters={"if_step": 2})
    status, words = refused(triton, numbers(1), 49, parameters={"if_step": 2})
    assert (status, "is at step 3, not 2" in words) == (409, True)


def test_request_that_is_refused_changes_nothing(triton):
    step(triton, numbers(2), 50, start=True)
    for more in ({}, {"start": True}, {"end": True}):
        assert refused(triton, numbers(1, width=9), 50, **more)[0] == 400
    assert step(triton, numbers(1), 50)[1]["step"] == 3
    status, words = refused(triton, numbers(1), 50, start=True, parameters={"if_step": 3})
    assert (status, "a sequence begins at step 0, got 3" in words) == (400, True)
    status, words = refused(triton, np.stack([numbers(1)] * 2), 50)
    assert (status, "a batch of 1" in words) == (400, True)
    assert step(triton, numbers(1), 50)[1]["step"] == 4


def test_sequences_go_on_after_a_crash(data, few):
    inputs = {7: numbers(4, 7), "text": numbers(4, 8)}
    with running_server("--max-sessions", "2", data=data, checkpoints=few) as server:
        with connected(server.url) as client:
            for sequence, steps in inputs.items():
                step(client, steps[:2], sequence, start=True)
            assert refused(client, numbers(1), 9, start=True)[0] == 503
            assert step(client, inputs[7][:2], 7, start=True)[1]["sequence_restarted"]
        server.stop(signal.SIGKILL)
        server.restart()
        with connected(server.url) as client:
            for sequence, steps in inputs.items():
                outputs = step(client, steps[2:], sequence, end=True)[0]
                assert np.array_equal(outputs, inferred(server.url, steps)["outputs"][2:])
            assert refused(client, numbers(1), 9)[0] == refused(client, numbers(1), 7)[0] == 400
            assert step(client, numbers(1), 7, start=True)[1]["step"] == 1


@pytest.mark.slow
def test_sequence_goes_on_at_another_server(database_url, tmp_path, few):
    with ExitStack() as stack:
        servers = [
            Server("--store", database_url, "--lease", "1", data=tmp_path / name, checkpoints=few) for name in "ab"
        ]
        for server in servers:
            stack.callback(server.stop)
        urls = [server.wait_until_listening().url for server in servers]
        a, b = (stack.enter_context(connected(url)) for url in urls)
        inputs = numbers(8)
        outputs = [step(client, inputs[t : t + 2], 7, start=t == 0)[0] for t, client in ((0, a), (2, b), (4, a))]
        servers[0].stop(signal.SIGKILL)
        outputs += [step(b, inputs[6:], 7)[0]]
        assert np.array_equal(np.concatenate(outputs), inferred(urls[1], inputs)["outputs"])
        assert step(b, inputs[:1], 7, start=True, end=True)[1]["sequence_restarted"]
        assert refused(b, inputs, 7)[0] == 400
