"""Routes: refuse plain HTTP requests to the paths of WebSockets."""

from fastapi import APIRouter, Response

from app.api.openapi import PROBLEMS
from app.errors import UpgradeRequired

router = APIRouter(responses=PROBLEMS)


@router.get("/stream", include_in_schema=False)
@router.get("/streams", include_in_schema=False)
@router.get("/sessions/{session}/stream", include_in_schema=False)
async def refuse_plain_stream() -> Response:
    """Refuse a request without an upgrade, as it comes through a proxy that does not forward upgrades."""
    raise UpgradeRequired(
        "streams are WebSockets, but this request is plain HTTP: connect with a WebSocket client; "
        "a proxy in between must forward the headers Upgrade and Connection",
        expected="a WebSocket handshake",
        got="a request without an upgrade",
    )
