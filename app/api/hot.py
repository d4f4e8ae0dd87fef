"""Hot routes: those that clients call for every step, answered ahead of FastAPI's router and without its machinery.

    uvicorn -> MeasureRequests -> HotPaths --- a hot route ---> its endpoint
                                         '--- any other ---> AnswerHead -> FastAPI's router -> dependencies -> endpoint

A hot route is also in the router, for /openapi.json and for the methods of a path. Its endpoint gets the request and
the parameters of its path, as text, and finds everything else by itself.
"""

from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.problems import error_response
from app.errors import EngramError

Endpoint = Callable[..., Coroutine[Any, Any, Response]]


class HotRoute(APIRoute):
    """A route that FastAPI documents and matches, but prepares nothing for."""

    def get_route_handler(self) -> Endpoint:
        async def handle(request: Request) -> Response:
            response: Response = await self.endpoint(request, **request.path_params)
            return response

        return handle


def hot(router: APIRouter, path: str, **documented: Any) -> Callable[[Endpoint], Endpoint]:
    """Register an endpoint as the hot route for POST requests of a path; documented: options of FastAPI."""

    def register(endpoint: Endpoint) -> Endpoint:
        router.add_api_route(path, endpoint, methods=["POST"], route_class_override=HotRoute, **documented)
        return endpoint

    return register


class HotPaths:
    """Answer the requests of hot routes, and pass all others on."""

    def __init__(self, app: ASGIApp, routes: Iterable[BaseRoute]) -> None:
        self._app = app
        self._routes = [(route.path_regex.match, route) for route in routes if isinstance(route, HotRoute)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and not scope.get("root_path"):
            for match, route in self._routes:
                found = match(scope["path"])
                if found:
                    scope["route"] = route  # for the metrics
                    response = await _respond(route.endpoint, Request(scope, receive, send), found.groupdict())
                    await response(scope, receive, send)
                    return
        await self._app(scope, receive, send)


async def _respond(endpoint: Endpoint, request: Request, parameters: dict[str, str]) -> Response:
    """Return an endpoint's response, or the one of its error."""
    try:
        return await endpoint(request, **parameters)
    except (EngramError, ClientDisconnect) as error:
        response = error_response(error)
        error.__traceback__ = None  # an error that is kept and raised again would grow by it
        return response
