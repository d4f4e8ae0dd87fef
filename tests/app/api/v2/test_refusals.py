"""Requests that are not valid: every error under /v2 is a document of the protocol, which says what to do."""

import gzip
import json
from http import HTTPStatus

import httpx
import pytest

from app.api.problems import v2_document
from app.errors import EngramError
from tests.test_docs import subclasses

URL = "/v2/models/dnc-copy/infer"
TENSOR = {"name": "inputs", "datatype": "FP32", "shape": [1, 10], "data": [0.5] * 10}


def body(parameters=None, outputs=None, **tensor):
    """Return a request, with other members of its tensor."""
    more = {"parameters": parameters} if parameters else {}
    return {"inputs": [TENSOR | tensor], **more, **({"outputs": outputs} if outputs else {})}


def in_binary(parameters, behind, **tensor):
    """Return a request with bytes behind its JSON, and the header field with the length of the JSON."""
    values = {**TENSOR, **tensor, "parameters": parameters}
    values.pop("data")
    head = json.dumps({"inputs": [values]}).encode()
    return head + behind, {"Inference-Header-Content-Length": str(len(head))}


def error(response: httpx.Response, status: int) -> str:
    """Return the text of an error of the protocol."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    [(name, text)] = response.json().items()
    assert name == "error"
    return str(text)


BAD = {
    "no inputs": ({}, "key 'inputs' is missing"),
    "two inputs": ({"inputs": [TENSOR, TENSOR]}, "one tensor, of the name 'inputs'"),
    "another input": (body(name="input"), "one tensor, of the name 'inputs'"),
    "an unknown member": (body() | {"input": 1}, "unknown key 'input'; expected one of id, parameters, inputs"),
    "a number for an id": (body() | {"id": 7}, "id: Input should be a valid string, got 7"),
    "FP64": (body(datatype="FP64"), "expected FP32: convert it, with NumPy by .astype(numpy.float32), got FP64"),
    "INT32": (body(datatype="INT32"), "expected FP32"),
    "BYTES": (body(datatype="BYTES", data=["a"]), "expected FP32"),
    "four axes": (body(shape=[1, 1, 1, 10]), "[B, T, input_size], [T, input_size] or [input_size]"),
    "no axes": (body(shape=[], data=[1.0]), "[B, T, input_size]"),
    "no steps": (body(shape=[0, 10], data=[]), "no size of it 0"),
    "a negative size": (body(shape=[-1, 10]), "inputs[0].shape[0]: Input should be greater than or equal to 0"),
    "another width": (body(shape=[1, 9], data=[0.5] * 9), "expected 10 as the last size"),
    "too few numbers": (body(data=[0.5] * 9), "expected 10 numbers, as the shape [1, 10] has, got 9"),
    "no data": (body(data=None), "inputs[0].data: expected a list of numbers, or lists"),
    "ragged data": (body(data=[[0.5] * 9, 0.5]), "expected a list of numbers"),
    "lists of another shape": (
        body(shape=[2, 10], data=[[0.5] * 2] * 10),
        "inputs[0].data: expected a list of numbers, or lists nested as the shape [2, 10] is",
    ),
    "lists of other lengths": (body(shape=[2, 10], data=[[0.5] * 9, [0.5] * 11]), "nested as the shape [2, 10] is"),
    "text in data": (body(data=["x", *[0.5] * 9]), "expected a list of numbers"),
    "NaN": (body(data=[float("nan")] * 10), "inputs[0][0]: expected a finite number within the range of float32"),
    "beyond float32": (body(data=[0.5] * 9 + [1e39]), "inputs[0][9]: expected a finite number"),
    "too many steps": (body(shape=[501, 10], data=[0] * 5010), "at most 500 steps are accepted at a time"),
    "too many sequences": (body(shape=[9, 1, 10], data=[0] * 90), "at most 8 sequences (setting max_sequences)"),
    "a huge shape": (body(shape=[2**62, 2**62, 10]), "numbers, as the shape"),
    "an unknown output": (body(outputs=[{"name": "memory?"}]), "no output 'memory?'; it has outputs, read_keys"),
    "an output twice": (body(outputs=[{"name": "outputs"}] * 2), "expected each output once"),
    "classes": (
        body(outputs=[{"name": "outputs", "parameters": {"classification": 3}}]),
        "expected no classification",
    ),
    "an output in shared memory": (
        body(outputs=[{"name": "outputs", "parameters": {"shared_memory_region": "r"}}]),
        "shares no memory",
    ),
    "an unknown parameter": (
        body({"sequnce_id": 1}),
        "unknown key 'parameters.sequnce_id'; expected one of sequence_id",
    ),
    "an unknown parameter of a tensor": (body(parameters={"x": 1}), "unknown key 'parameters.x'"),
    "a flag that is a number": (body({"sequence_id": 1, "sequence_start": 1}), "Input should be a valid boolean"),
    "a start without an id": (body({"sequence_start": True}), "a sequence_id beside it, which is not 0"),
    "an end with the id 0": (body({"sequence_id": 0, "sequence_end": True}), "a sequence_id beside it"),
    "a step without an id": (body({"if_step": 0}), "parameters.if_step: expected a sequence_id beside it"),
    "a negative id": (body({"sequence_id": -1}), "expected a whole number from 0 to 18446744073709551615"),
    "too large an id": (body({"sequence_id": 2**64}), "expected a whole number from 0 to 18446744073709551615"),
    "a fraction for an id": (body({"sequence_id": 1.5}), "expected a whole number from 0"),
    "true for an id": (body({"sequence_id": True}), "expected a whole number from 0"),
    "a long id": (body({"sequence_id": "x" * 256}), "text of at most 255 characters"),
    "a memory that is none": (body({"memory_size": 0}), "parameters.memory_size: Input should be greater"),
    "a binary flag of text": (
        body(outputs=[{"name": "outputs", "parameters": {"binary_data": "yes"}}]),
        "outputs[0].parameters.binary_data: expected true or false, got 'yes'",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_request_that_is_not_valid_is_refused(client, case):
    sent, words = BAD[case]
    assert words in error(client.post(URL, content=json.dumps(sent)), 400)


BAD_BINARY = {
    "too few bytes": (in_binary({"binary_data_size": 40}, b"x" * 39), "40 is given, but 39 bytes stand behind"),
    "bytes of another shape": (in_binary({"binary_data_size": 36}, b"x" * 36), "expected 40 bytes, as the shape"),
    "no size": (in_binary({}, b"x" * 40), "none is given, but 40 bytes stand behind the JSON"),
    "a negative size": (in_binary({"binary_data_size": -1}, b""), "expected a whole number of at least 0, got -1"),
    "an unknown parameter": (in_binary({"size": 4}, b""), "inputs[0].parameters: expected one of binary_data_size"),
    "numbers that are not finite": (in_binary({"binary_data_size": 40}, b"\xff" * 40), "expected a finite number"),
    "a length beyond the body": ((b"{}", {"Inference-Header-Content-Length": "3"}), "1 to the 2 bytes of the body"),
    "a length of 0": ((b"{}", {"Inference-Header-Content-Length": "0"}), "1 to the 2 bytes of the body"),
    "a length that is none": ((b"{}", {"Inference-Header-Content-Length": "x"}), "1 to the 2 bytes of the body"),
    "no JSON": ((b"{", {}), "this is not JSON"),
    "no body": ((b"", {}), "this is not JSON"),
    "no gzip": ((b"{}", {"Content-Encoding": "gzip"}), "this is not gzip"),
}


@pytest.mark.parametrize("case", BAD_BINARY)
def test_body_that_cannot_be_decoded_is_refused(client, case):
    (sent, headers), words = BAD_BINARY[case]
    assert words in error(client.post(URL, content=sent, headers=headers), 400)


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/v2/nothing", 404, "there is nothing here"),
        ("GET", "/v2/", 404, "without the slash at its end is /v2"),
        ("GET", "/v2/models/nobody", 404, "there is no model 'nobody'; expected one of"),
        ("GET", "/v2/models/dnc-copy/versions/3/config", 404, "has the versions 1 and 2, got '3'"),
        ("POST", "/v2/models/nobody/infer", 404, "there is no model 'nobody'"),
        ("POST", "/v2/models/dnc-copy/versions/3/infer", 404, "has the versions 1 and 2"),
        ("GET", "/v2/models/dnc-copy/versions/01", 404, "has the versions 1 and 2"),
        ("GET", URL, 405, "the methods of this path are POST, OPTIONS"),
        ("DELETE", "/v2", 405, "the methods of this path are GET, HEAD, OPTIONS"),
    ],
)
def test_path_or_method_that_there_is_not_is_refused(client, method, path, status, words):
    assert words in error(client.request(method, path), status)


@pytest.mark.parametrize("headers", [{}, {"Content-Encoding": "gzip"}])
def test_body_that_is_too_large_is_refused(client, headers):
    sent = b" " * 200_001
    sent = gzip.compress(sent) if headers else sent
    assert "setting max_body_bytes" in error(client.post(URL, content=sent, headers=headers), 413)


@pytest.mark.parametrize(("media", "status"), [("text/plain", 415), ("application/octet-stream", 200), (None, 200)])
def test_body_has_one_of_three_media_types(server, media, status):
    headers = {} if media is None else {"Content-Type": media}
    answer = httpx.post(server.url + URL, content=json.dumps(body()), headers=headers)
    assert answer.status_code == status
    assert answer.is_success or "with curl: -H 'Content-Type: application/json'" in error(answer, status)


def test_every_error_has_its_text_and_status(client):
    for each in subclasses(EngramError):
        found = v2_document(each("a" * 5000, expected="b"))
        assert found == {"error": "a" * 4000 + "; expected b"}
        assert each.status in {*HTTPStatus}


def test_errors_elsewhere_stay_problem_documents(client):
    assert client.get("/v2x").headers["content-type"] == "application/problem+json"
    assert client.post("/infer", content=b"{").json()["code"] == "malformed_body"


@pytest.mark.parametrize("shape", [[10], [1, 1, 10]])
def test_second_version_takes_rows_alone(client, shape):
    answer = client.post("/v2/models/dnc-copy/versions/2/infer", json=body(shape=shape))
    assert "expected [B, input_size], one step of each sequence, in version 2, got" in error(answer, 400)


@pytest.mark.parametrize(("parameters", "shape"), [(None, [1, 9]), (None, [9, 10]), ({"sequence_id": 3}, [2, 10])])
def test_second_version_names_the_shape_as_it_came(client, parameters, shape):
    sent = body(parameters, shape=shape, data=[0.5] * (shape[0] * shape[1]))
    assert error(client.post("/v2/models/dnc-copy/versions/2/infer", json=sent), 400).endswith(f"got {shape}")
