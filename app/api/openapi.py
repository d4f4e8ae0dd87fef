"""The OpenAPI document: the one of FastAPI, with errors as problem documents and the keys that the gate asks for.

The parts that routes share are here too.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.api import examples
from app.api.gate import ANY_SCOPE, PUBLIC, scope_of
from app.api.media import JSON, PROBLEM
from app.api.problems import is_v2
from app.api.schemas import (
    ErrorAnswer,
    ForkRequest,
    InferRequest,
    ManyStepsRequest,
    OpenRequest,
    ProblemAnswer,
    RewindRequest,
    StepsRequest,
)

PROBLEMS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ProblemAnswer, "description": "What is wrong with the request, and where"},
    "500": {"model": ProblemAnswer, "description": "An error of the server, whose log has the details"},
    "503": {
        "model": ProblemAnswer,
        "description": "Too busy, or stopping: try again after Retry-After",
        "headers": {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}},
    },
}

ERRORS: dict[int | str, dict[str, Any]] = {
    status: described | {"model": ErrorAnswer} for status, described in PROBLEMS.items()
}
"""The same under /v2."""

OF_ALL = {
    "400": "The request cannot be read, or names no host, or two",
    "408": "The request did not come in time",
    "414": "The URL is too long",
    "421": "The server does not answer for this host",
    "431": "The header fields are too large",
}
"""Problems that any request may have, before a route sees it, by status."""

OF_KEYS = {
    "401": "A key is needed, and none came, or one that is not valid",
    "403": "The key may not do this, or the request comes from a page of another origin",
    "429": "The key's limit is reached: try again after Retry-After",
}
"""Problems of routes that may need a key."""

OF_BODIES = {"413": "The body is too large", "415": "The media type or the coding of the body is not taken"}

KEY = "key"
"""The name of the security scheme."""

SCHEME = {
    "type": "http",
    "scheme": "bearer",
    "description": "A key of `engram keys create`. A server that has none takes requests without one.",
}

OPENED: dict[int | str, dict[str, Any]] = {
    201: {
        "description": "The session",
        "headers": {
            "Location": {"schema": {"type": "string"}, "description": "its URL, relative to that of the request"}
        },
    }
}

BINARY = {"schema": {"type": "string", "format": "binary"}}


BODIES = (InferRequest, OpenRequest, StepsRequest, ManyStepsRequest, RewindRequest, ForkRequest)
"""The documents that routes read by themselves, so that FastAPI does not know of them; those of /v2 are in its room."""

REFERENCE = "#/components/schemas/{model}"


def documented_body(
    model: type[BaseModel], others: Mapping[str, Any] | None = None, required: bool = True
) -> dict[str, Any]:
    """Return the documentation of a body that the route reads by itself; its model is one of `bodies` of the app.

    others: bodies by their media types.
    """
    content = {JSON: {"schema": {"$ref": REFERENCE.format(model=model.__name__)}}, **(others or {})}
    return {"requestBody": {"required": required, "content": content}}


def operation_name(route: APIRoute) -> str:
    """Return the id of an operation, from which generated clients make the name of a function."""
    begin = "v2_" if is_v2(route.path) else ""
    end = "_in_version" if "{version}" in route.path and not route.name.endswith("_in_version") else ""
    return f"{begin}{route.name}{end}"


class DocumentedApp(FastAPI):
    """A FastAPI application whose errors are problem documents (RFC 9457)."""

    def __init__(self, bodies: Sequence[type[BaseModel]] = BODIES, **options: Any) -> None:
        """bodies: the models that `documented_body` names; options: of FastAPI."""
        super().__init__(**options)
        self._bodies = bodies

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document."""
        if self.openapi_schema is None:
            document = super().openapi()
            components = document.setdefault("components", {})
            components["securitySchemes"] = {KEY: SCHEME}
            components["schemas"] = dict(sorted({**components["schemas"], **_schemas_of(self._bodies)}.items()))
            for path, operations in document["paths"].items():
                for operation in operations.values():
                    _secure(operation, path)
                    _complete(operation["responses"], refusals(path, "requestBody" in operation), path)
                    _exemplify(operation, path)
        return super().openapi()


def refusals(path: str, has_body: bool) -> dict[str, str]:
    """Return the descriptions of the problems of an operation that have a status of their own, by status."""
    return OF_ALL | ({} if path in PUBLIC else OF_KEYS) | (OF_BODIES if has_body else {})


def _schemas_of(bodies: Sequence[type[BaseModel]]) -> dict[str, Any]:
    _, schemas = models_json_schema([(model, "validation") for model in bodies], ref_template=REFERENCE)
    found: dict[str, Any] = schemas["$defs"]
    return found


def _exemplify(operation: dict[str, Any], path: str) -> None:
    """Add the examples of an operation, and one of an error."""
    name, responses = operation["operationId"], operation["responses"]
    if name in examples.REQUESTS:
        operation["requestBody"]["content"][JSON]["example"] = examples.REQUESTS[name]
    if name in examples.ANSWERS:
        [response] = (response for status, response in responses.items() if status[0] == "2")
        response["content"][JSON]["example"] = examples.ANSWERS[name]
    if is_v2(path):
        responses["4XX"]["content"][JSON]["example"] = {"error": examples.PROBLEM["detail"]}
    else:
        responses["4XX"]["content"][PROBLEM]["example"] = examples.PROBLEM


def _secure(operation: dict[str, Any], path: str) -> None:
    """Give an operation what the gate asks for, also in words: Swagger UI does not show the scope of a key."""
    if path in PUBLIC:
        operation["security"] = []
        return
    scope = scope_of(path)
    words = "" if scope == ANY_SCOPE else f" with the scope `{scope}`"
    operation["security"] = [{KEY: [] if scope == ANY_SCOPE else [scope]}]
    needed = f"Needs a key{words}, where the server requires keys."
    operation["description"] = f"{operation.get('description', '')}\n\n{needed}".strip()


def _complete(responses: dict[str, Any], named: Mapping[str, str], path: str) -> None:
    """Give an operation's errors the media type that they have on its path, and add the named ones."""
    for status, response in responses.items():
        if status[0] in "45":
            [schema] = response["content"].values()
            response["content"] = {JSON if is_v2(path) else PROBLEM: schema}
    content, busy = responses["4XX"]["content"], responses["503"]["headers"]
    for status, description in sorted(named.items()):
        responses[status] = {"description": description, "content": content}
    if "401" in named:
        responses["401"]["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}, "description": "Bearer"}}
        responses["429"]["headers"] = busy
