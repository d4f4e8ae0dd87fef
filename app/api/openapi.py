"""The OpenAPI document: what FastAPI makes of the routes, with errors as the problem documents that they are."""

from typing import Any

from fastapi import FastAPI

from app.api.problems import PROBLEM


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
