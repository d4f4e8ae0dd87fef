"""Models that take tokens and answer classes, at real servers of every back end."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgpack
import numpy as np
import pytest
import torch
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from models.artefact import load
from models.contract import unroll
from tests.app.checkpoints import make_checkpoint, make_token_checkpoint
from tests.app.harness import Server, running_server

SENTENCE = [3, 0, 6, 6, 1]
NESTED = [[token] for token in SENTENCE]
TOKEN = "a token, a whole number from 0 to 6"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("checkpoints")
    make_token_checkpoint(root / "words", output_at="last-step")
    make_token_checkpoint(root / "digits", output_size=6, output_groups=2)
    make_checkpoint(root / "bits")
    return root


@pytest.fixture(scope="module", params=["fused", "onnx", "torch"])
def server(
    request: pytest.FixtureRequest, checkpoints: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("tokens") / "data"
    with running_server("--backend", request.param, data=data, checkpoints=checkpoints) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30, headers={"Content-Type": "application/json"}) as client:
        yield client


@pytest.fixture(scope="module")
def expected(checkpoints: Path) -> Any:
    """The probabilities of the classes that torch gives for SENTENCE: [T, 3]."""
    model, _ = load(checkpoints / "words")
    with torch.no_grad():
        outputs, _, _ = unroll(model, torch.tensor(NESTED)[:, None].float(), model.initial_state(1))
        return model.activate(outputs)[:, 0].numpy()


@pytest.mark.slow
def test_card_shows_tokens_and_classes(client):
    words, bits = (client.get(f"/models/{name}").json() for name in ("words", "bits"))
    assert (words["input_size"], words["vocabulary_size"]) == (1, 7)
    assert (words["output_activation"], words["output_at"], words["memory_size"]) == ("softmax", "last-step", None)
    assert (bits["vocabulary_size"], bits["output_at"]) == (None, "every-step")


def test_card_shows_several_classes_at_once(client):
    groups = {name: client.get(f"/models/{name}").json()["output_groups"] for name in ("digits", "words", "bits")}
    assert groups == {"digits": 2, "words": 1, "bits": 1}


def test_every_digit_has_the_probabilities_of_torch(client, checkpoints):
    model, _ = load(checkpoints / "digits")
    outputs, _, _ = unroll(model, torch.tensor(NESTED)[:, None].float(), model.initial_state(1))
    digits = torch.softmax(outputs[:, 0].detach().reshape(5, 2, 3), -1)
    reply = client.post("/infer", json={"model": "digits", "inputs": SENTENCE}).json()
    np.testing.assert_allclose(np.reshape(reply["outputs"], (5, 2, 3)), digits, atol=1e-5)


@pytest.mark.parametrize("inputs", [NESTED, SENTENCE, [[float(token)] for token in SENTENCE]])
def test_infer_takes_tokens_with_or_without_their_lists(client, expected, inputs):
    reply = client.post("/infer", json={"model": "words", "inputs": inputs}).json()
    np.testing.assert_allclose(reply["outputs"], expected, atol=1e-5)
    np.testing.assert_allclose(np.sum(reply["outputs"], 1), 1, atol=1e-5)
    assert reply["steps"] == 5


def test_infer_takes_a_batch_of_sequences_of_tokens(client, expected):
    reply = client.post("/infer", json={"model": "words", "inputs": [NESTED[:2], NESTED]}).json()
    assert reply["steps"] == [2, 5]
    for outputs in reply["outputs"]:
        np.testing.assert_allclose(outputs, expected[: len(outputs)], atol=1e-5)


def test_session_takes_tokens_with_or_without_their_lists(client, expected):
    session = client.post("/sessions", json={"model": "words"}).json()["id"]
    outputs = []
    for inputs in (SENTENCE[:2], NESTED[2:]):
        outputs += client.post(f"/sessions/{session}/steps", json={"inputs": inputs}).json()["outputs"]
    np.testing.assert_allclose(outputs, expected, atol=1e-5)


def test_stream_takes_tokens_in_json_and_msgpack(server, expected):
    raw = {"shape": [5], "data": np.array(SENTENCE, "<f4").tobytes()}
    with connect(f"{server.socket_url}/stream?model=words") as stream:
        stream.recv()
        stream.send(json.dumps({"inputs": SENTENCE}))
        np.testing.assert_allclose(json.loads(stream.recv())["outputs"], expected, atol=1e-5)
    for inputs in (raw, {**raw, "shape": [5, 1]}, SENTENCE):
        url, protocols = f"{server.socket_url}/stream?model=words", [Subprotocol("engram.msgpack")]
        with connect(url, subprotocols=protocols) as stream:
            stream.recv()
            stream.send(msgpack.packb({"inputs": inputs}))
            outputs = msgpack.unpackb(stream.recv())["outputs"]
        numbers = np.frombuffer(outputs["data"], "<f4").reshape(outputs["shape"])
        np.testing.assert_allclose(numbers, expected, atol=1e-5)


REFUSED = {
    "beyond the vocabulary": ("[[0], [7]]", "inputs[1][0]", TOKEN),
    "beyond it, without lists": ("[0, 1, 2, 7]", "inputs[3]", TOKEN),
    "negative": ("[[0], [1], [2], [-1]]", "inputs[3][0]", TOKEN),
    "a fraction": ("[[0.5]]", "inputs[0][0]", TOKEN),
    "a fraction that float32 would hide": ("[[3.0000000001]]", "inputs[0][0]", TOKEN),
    "text": ('["a"]', "inputs[0]", TOKEN),
    "null": ("[[null]]", "inputs[0][0]", TOKEN),
    "NaN": ("[[NaN]]", "inputs[0][0]", TOKEN),
    "enormous": ("[[1e400]]", "inputs[0][0]", TOKEN),
    "two tokens in a step": ("[[1, 2]]", "inputs[0]", "one token"),
    "no token in a step": ("[[]]", "inputs[0]", "one token"),
    "with and without a list": ("[[1], 2]", "inputs[1]", "a list of one token"),
    "nothing": ("[]", "inputs", "at least one step"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_token_is_refused_everywhere_with_its_place(server, client, case):
    inputs, place, expected = REFUSED[case]
    session = client.post("/sessions", json={"model": "words"}).json()["id"]
    answers = [
        client.post("/infer", content=f'{{"model": "words", "inputs": {inputs}}}').json(),
        client.post(f"/sessions/{session}/steps", content=f'{{"inputs": {inputs}}}').json(),
    ]
    with connect(f"{server.socket_url}/sessions/{session}/stream") as stream:
        stream.recv()
        stream.send(f'{{"inputs": {inputs}}}')
        answers.append(json.loads(stream.recv()))
    for reply in answers:
        assert (reply["status"], reply["code"], reply["place"], reply["expected"]) == (
            422,
            "invalid_input",
            place,
            expected,
        )
    assert client.get(f"/sessions/{session}").json()["step"] == 0


def test_batch_refusal_names_the_sequence(client):
    reply = client.post("/infer", json={"model": "words", "inputs": [[[1]], [[2], [9]]]}).json()
    assert (reply["place"], reply["got"]) == ("inputs[1][1][0]", "9")


def test_binary_tokens_are_checked_as_json_is(server):
    url = f"{server.socket_url}/stream?model=words"
    with connect(url, subprotocols=[Subprotocol("engram.msgpack")]) as stream:
        stream.recv()
        stream.send(msgpack.packb({"inputs": {"shape": [2, 1], "data": np.array([1, 2.5], "<f4").tobytes()}}))
        reply = msgpack.unpackb(stream.recv())
    assert (reply["code"], reply["place"], reply["expected"], reply["got"]) == (
        "invalid_input",
        "inputs[1][0]",
        TOKEN,
        "2.5",
    )


def test_other_models_take_no_plain_list(client):
    reply = client.post("/infer", json={"model": "bits", "inputs": [0, 1, 1, 0]}).json()
    assert (reply["place"], reply["expected"]) == ("inputs[0]", "a list of 4 numbers")


def test_documentation_names_token_inputs(client):
    inputs = client.get("/openapi.json").json()["components"]["schemas"]["StepsRequest"]["properties"]["inputs"]
    assert [form["description"] for form in inputs["anyOf"]] == ["[T][input_size]", "[T], of tokens"]
