"""The OpenAPI document says what a real server sends."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from app.api import examples
from app.api.openapi import refusals
from app.api.problems import is_v2
from tests.app.api.test_http import PROBLEM, open_session
from tests.app.api.test_matrix import TABLE, V2_INFER
from tests.app.copying import sequence

Call = Callable[[httpx.Client, str], httpx.Response]

SAFETENSORS = "application/x-safetensors"
STEPS = {"inputs": sequence(3)[0], "trace": ["usage"]}

ANSWERS: dict[str, Call] = {
    "get /models": lambda client, _: client.get("/models"),
    "get /models/{name}": lambda client, _: client.get("/models/lstm-copy"),
    "get /models/{name}/sample": lambda client, _: client.get("/models/dnc-babi-1/sample"),
    "post /infer": lambda client, _: client.post("/infer", json=STEPS | {"model": "dnc-copy"}),
    "post /sessions": lambda client, _: client.post("/sessions", json={"model": "ntm-copy"}),
    "get /sessions": lambda client, _: client.get("/sessions"),
    "get /sessions/{session}": lambda client, session: client.get(f"/sessions/{session}"),
    "delete /sessions/{session}": lambda client, _: client.delete(f"/sessions/{open_session(client)}"),
    "post /sessions/{session}/steps": lambda client, session: client.post(f"/sessions/{session}/steps", json=STEPS),
    "post /steps": lambda client, session: client.post(
        "/steps", json={"sessions": [session, "nobody"], "inputs": [STEPS["inputs"]] * 2}
    ),
    "post /sessions/{session}/reset": lambda client, _: client.post(f"/sessions/{open_session(client)}/reset"),
    "post /sessions/{session}/rewind": lambda client, s: client.post(f"/sessions/{s}/rewind", json={"step": 1}),
    "post /sessions/{session}/fork": lambda client, session: client.post(f"/sessions/{session}/fork"),
    "get /sessions/{session}/snapshot": lambda client, session: client.get(f"/sessions/{session}/snapshot"),
    "get /sessions/{session}/recording": lambda client, session: client.get(f"/sessions/{session}/recording"),
    "get /sessions/{session}/state": lambda client, session: client.get(f"/sessions/{session}/state"),
    "get /healthz": lambda client, _: client.get("/healthz"),
    "get /readyz": lambda client, _: client.get("/readyz"),
    "post /admin/reload": lambda client, _: client.post("/admin/reload"),
    "get /metrics": lambda client, _: client.get("/metrics"),
    "post /v2/repository/index": lambda client, _: client.post("/v2/repository/index"),
    **{
        f"post {model}/infer": lambda client, _, model=model: client.post(
            f"{model.format(name='dnc-copy', version=1)}/infer",
            json=V2_INFER | {"id": "one", "parameters": {"sequence_id": 5, "sequence_start": True}},
        )
        for model in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}")
    },
    **{
        f"get {path}": lambda client, _, path=path: client.get(path.format(name="dnc-copy", version=1))
        for path in (name.removeprefix("GET ") for name in TABLE if name.startswith("GET /v2"))
    },
}


@pytest.fixture
def document(client: httpx.Client) -> dict[str, Any]:
    return dict(client.get("/openapi.json").json())


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method} {path}", operation


def found(document: dict[str, Any], key: str) -> Iterator[Any]:
    """Yield what stands under a key, anywhere in the document."""
    items = document.items() if isinstance(document, dict) else enumerate(document)
    for name, value in items:
        if name == key:
            yield value
        if isinstance(value, (dict, list)):
            yield from found(value, key)


def media_type(response: httpx.Response) -> str:
    return response.headers.get("content-type", "").split(";")[0]


def check(document: dict[str, Any], described: dict[str, Any], response: httpx.Response) -> None:
    """Hold a response against its description."""
    assert {*described.get("headers", {})} <= {name.title() for name in response.headers}
    if not response.content:
        assert "content" not in described
        return
    schema = described["content"][media_type(response)]["schema"] | {"components": document["components"]}
    text = "json" in media_type(response) and not media_type(response).endswith("ndjson")
    Draft202012Validator(schema).validate(response.json() if text else response.text)


def test_every_operation_has_an_example_here(document):
    assert {name for name, _ in operations(document)} == ANSWERS.keys()


@pytest.mark.parametrize("name", ANSWERS)
def test_answer_is_what_the_document_says(client, document, name):
    session = open_session(client)
    client.post(f"/sessions/{session}/steps", json=STEPS)
    response = ANSWERS[name](client, session)
    assert response.is_success, response.text
    check(document, dict(operations(document))[name]["responses"][str(response.status_code)], response)


@pytest.mark.parametrize(
    "name",
    [name for name in ANSWERS if "{" in name or name in ("post /infer", "post /sessions")],
)
def test_error_is_the_problem_that_the_document_says(client, document, name):
    method, path = name.split()
    response = client.request(
        method, path.format(session="nobody", name="nobody", version="2"), content=b'{"step": 1, "inputs": "x"}'
    )
    assert response.status_code in (404, 422), response.text
    check(document, dict(operations(document))[name]["responses"]["4XX"], response)


def test_errors_are_problem_documents_on_every_route(document):
    for name, operation in operations(document):
        errors = {status: value for status, value in operation["responses"].items() if status[0] in "45"}
        assert errors.keys() == {"4XX", "500", "503", *refusals(name.split()[1], "requestBody" in operation)}, name
        media = "application/json" if is_v2(name.split()[1]) else PROBLEM
        assert all([*error["content"]] == [media] for error in errors.values()), name
        assert errors["503"]["headers"].keys() == {"Retry-After"}


def test_problems_of_a_status_are_documented_where_they_occur(document):
    of = {name: operation["responses"].keys() for name, operation in operations(document)}
    assert all({"400", "408", "414", "421", "431"} <= statuses for statuses in of.values())
    assert {name for name, statuses in of.items() if "401" not in statuses} == {
        *("get /healthz", "get /readyz", "get /v2/health/live", "get /v2/health/ready")
    }
    assert "413" in of["post /infer"]
    assert "413" not in of["get /models"]
    challenge = document["paths"]["/infer"]["post"]["responses"]["401"]["headers"]
    assert challenge.keys() == {"WWW-Authenticate"}


def test_operations_ask_for_the_keys_that_the_gate_does(document):
    """`test_matrix.py` holds the gate against the same table."""
    assert document["components"]["securitySchemes"]["key"].items() >= {("type", "http"), ("scheme", "bearer")}
    for name, operation in operations(document):
        method, path = name.split()
        scope = TABLE[f"{method.upper()} {path}"].scope
        scope = "any" if path.startswith("/v2") and path.endswith("/infer") else scope  # the body decides
        assert operation["security"] == ([{"key": [] if scope == "any" else [scope]}] if scope else []), name
        words = "" if scope == "any" else f" with the scope `{scope}`"
        assert (f"Needs a key{words}, where" in operation.get("description", "")) == (scope is not None), name


def test_states_and_snapshots_come_as_safetensors_too(client, document):
    session = open_session(client)
    for path in ("state", "snapshot"):
        response = client.get(f"/sessions/{session}/{path}", headers={"Accept": SAFETENSORS})
        described = document["paths"][f"/sessions/{{session}}/{path}"]["get"]["responses"]["200"]["content"]
        assert described[media_type(response)]["schema"]["format"] == "binary"


def test_bodies_are_required_where_a_request_without_one_is_refused(client, document):
    session = open_session(client)
    for name, operation in operations(document):
        if "requestBody" in operation:
            method, path = name.split()
            refused = (
                client.request(method, path.format(session=session, name="dnc-copy", version=1)).status_code == 400
            )
            assert operation["requestBody"]["required"] == refused, name


def test_schemas_are_schemas_and_their_references_lead_somewhere(document):
    for schema in [*found(document["paths"], "schema"), *document["components"]["schemas"].values()]:
        Draft202012Validator.check_schema(schema)
    names = {reference.rpartition("/")[2] for reference in found(document, "$ref")}
    assert names == document["components"]["schemas"].keys()


def test_paths_of_the_document_stand_beside_it(document):
    assert document["openapi"].startswith("3.1")
    assert [server["url"] for server in document["servers"]] == ["."]
    assert "content-type" not in json.dumps(document["paths"]["/sessions"]["post"]["parameters"])


def test_operation_ids_are_names_of_functions(document):
    ids = [operation["operationId"] for _, operation in operations(document)]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch("[a-z][a-z0-9]*(_[a-z]+)*", name) for name in ids), ids


def test_every_example_is_of_an_operation(document):
    ids = {operation["operationId"] for _, operation in operations(document)}
    assert {*examples.REQUESTS, *examples.ANSWERS} <= ids
    with_body = {operation["operationId"] for _, operation in operations(document) if "requestBody" in operation}
    assert with_body - {"step_sessions"} == examples.REQUESTS.keys()


def test_examples_are_what_the_document_says(document):
    places = list(found(document["paths"], "content"))
    shown = [entry for content in places for entry in content.values() if "example" in entry]
    assert len(shown) > len(examples.REQUESTS) + len(examples.ANSWERS)
    for entry in shown:
        schema = entry["schema"] | {"components": document["components"]}
        Draft202012Validator(schema).validate(entry["example"])


@pytest.mark.parametrize(
    "name", ["post /infer", "post /sessions", "post /sessions/{session}/steps", "post /v2/models/{name}/infer"]
)
def test_example_of_a_body_is_answered_like_the_example(client, document, name):
    """The documentation offers it to be tried as it is."""
    method, path = name.split()
    operation = document["paths"][path][method]
    body = operation["requestBody"]["content"]["application/json"]["example"]
    response = client.post(path.format(session=open_session(client), name="dnc-copy"), json=body)
    assert response.is_success
    assert response.json().keys() == examples.ANSWERS[operation["operationId"]].keys()
