"""Routes of WebSockets, asked for as plain HTTP."""

from fastapi import APIRouter, Response

from app.api.openapi import PROBLEMS
from app.errors import UpgradeRequired

router = APIRouter(responses=PROBLEMS)


@router.get("/stream", include_in_schema=False)
@router.get("/streams", include_in_schema=False)
@router.get("/sessions/{session}/stream", include_in_schema=False)
async def refuse_plain_stream() -> Response:
    """Say that a stream needs a WebSocket: a proxy that does not pass upgrades on asks like this."""
    raise UpgradeRequired(
        "streams are WebSockets, and this request is none: connect with a WebSocket client; "
        "a proxy in between must pass on the headers Upgrade and Connection",
        expected="a WebSocket handshake",
        got="a request without an upgrade",
    )
