"""The dependencies of the routes."""

import inspect
from collections.abc import Iterator

from fastapi.dependencies.models import Dependant

from app.api import routes, stream


def dependencies(dependant: Dependant) -> Iterator[Dependant]:
    for found in dependant.dependencies:
        yield found
        yield from dependencies(found)


def test_no_request_waits_for_a_thread():
    asked = [route.dependant for router in (routes.router, stream.router) for route in router.routes]
    calls = {need.call for dependant in asked for need in [dependant, *dependencies(dependant)]}
    assert len(calls) > 20
    assert [call.__name__ for call in calls if not inspect.iscoroutinefunction(call)] == []
