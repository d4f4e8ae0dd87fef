"""The OpenAPI document: the one of FastAPI, with errors as problem documents; and the parts that routes share."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI

from app.api.media import PROBLEM
from app.api.schemas import ProblemAnswer

PROBLEMS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ProblemAnswer, "description": "What is wrong with the request, and where"},
    "500": {"model": ProblemAnswer, "description": "An error of the server, whose log has the details"},
    "503": {
        "model": ProblemAnswer,
        "description": "Too busy, or stopping: try again after Retry-After",
        "headers": {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}},
    },
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
    content = {"application/json": {"schema": model.model_json_schema()}, **(others or {})}
    return {"requestBody": {"required": required, "content": content}}


class DocumentedApp(FastAPI):
    """A FastAPI application whose errors are problem documents (RFC 9457)."""

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document."""
        document = super().openapi()
        for operations in document["paths"].values():
            for operation in operations.values():
                for status, response in operation["responses"].items():
                    if status[0] in "45":
                        [schema] = response["content"].values()
                        response["content"] = {PROBLEM: schema}
        return document
