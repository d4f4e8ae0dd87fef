"""The OpenAPI document: the one of FastAPI, with errors as problem documents and the keys that the gate asks for.

The parts that routes share are here too.
"""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI

from app.api.gate import ANY_SCOPE, PUBLIC, scope_of
from app.api.media import JSON, PROBLEM
from app.api.problems import is_v2
from app.api.schemas import ErrorAnswer, ProblemAnswer

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


def documented_body(model: type[Any], others: Mapping[str, Any] | None = None, required: bool = True) -> dict[str, Any]:
    """Return the documentation of a body that the route reads by itself; others: bodies by their media types."""
    schema = model.model_json_schema()
    content = {JSON: {"schema": _inlined(schema, schema.pop("$defs", {}))}, **(others or {})}
    return {"requestBody": {"required": required, "content": content}}


def _inlined(schema: Any, parts: Mapping[str, Any]) -> Any:
    """Return a schema with its parts in place of the references to them, which hold at its own root only."""
    if isinstance(schema, list):
        return [_inlined(item, parts) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(parts[schema["$ref"].rpartition("/")[2]], parts)
    return {key: _inlined(value, parts) for key, value in schema.items()}


class DocumentedApp(FastAPI):
    """A FastAPI application whose errors are problem documents (RFC 9457)."""

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document."""
        if self.openapi_schema is None:
            document = super().openapi()
            document.setdefault("components", {})["securitySchemes"] = {KEY: SCHEME}
            for path, operations in document["paths"].items():
                for operation in operations.values():
                    _secure(operation, path)
                    _complete(operation["responses"], refusals(path, "requestBody" in operation), path)
        return super().openapi()


def refusals(path: str, has_body: bool) -> dict[str, str]:
    """Return the descriptions of the problems of an operation that have a status of their own, by status."""
    return OF_ALL | ({} if path in PUBLIC else OF_KEYS) | (OF_BODIES if has_body else {})


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
