"""The dependencies of the routes."""

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import Request
from fastapi.dependencies.models import Dependant

from app.access.keys import SCOPES, Caller
from app.api import routes, stream
from app.api.deps import read_body
from app.api.leases import LEASES
from app.budget import Budget
from app.errors import InvalidKey, UploadsFull
from tests.app.asynchronous import run


def dependencies(dependant: Dependant) -> Iterator[Dependant]:
    for found in dependant.dependencies:
        yield found
        yield from dependencies(found)


def test_no_request_waits_for_a_thread():
    asked = [route.dependant for router in (routes.router, stream.router) for route in router.routes]
    calls = {need.call for dependant in asked for need in [dependant, *dependencies(dependant)]}
    assert len(calls) > 20
    assert [call.__name__ for call in calls if not inspect.iscoroutinefunction(call)] == []


def test_body_whose_key_is_revoked_meanwhile_is_refused():
    caller = Caller("lab", frozenset(SCOPES))

    async def receive() -> dict[str, Any]:
        caller.end(InvalidKey("revoked"))
        return {"type": "http.request", "body": b"{}"}

    request = Request({"type": "http", "headers": [], "caller": caller, LEASES: []}, receive)
    with pytest.raises(InvalidKey, match="revoked"):
        run(read_body(request, 10, Budget("uploads", 10, "max_upload_bytes", UploadsFull)))
