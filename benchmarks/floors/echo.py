"""Frames and POSTs echoed by uvicorn: python -m benchmarks.floors.echo WIDTH.

A WebSocket goes through Starlette's class, as it does in most applications; a POST is plain ASGI.
"""

import sys

from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from benchmarks.floors import serve
from benchmarks.floors.frames import echo_json, echo_msgpack
from benchmarks.server import PROTOCOL


def echo(width: int) -> ASGIApp:
    """Return an application that answers every request with its inputs, cut to `width` columns."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await _answer(await _body(receive), width, send)
        elif scope["type"] == "websocket":
            await _echo_frames(WebSocket(scope, receive, send), width)
        else:
            await _lifespan(receive, send)

    return app


async def _lifespan(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def _body(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if not message.get("more_body"):
            return body


async def _answer(body: bytes, width: int, send: Send) -> None:
    answer = echo_json(body, width)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


async def _echo_frames(socket: WebSocket, width: int) -> None:
    binary = PROTOCOL in socket.scope["subprotocols"]
    await socket.accept(PROTOCOL if binary else None)
    await (socket.send_bytes(b"\x80") if binary else socket.send_text("{}"))  # the greeting
    try:
        while True:
            if binary:
                await socket.send_bytes(echo_msgpack(await socket.receive_bytes(), width))
            else:
                await socket.send_text(echo_json(await socket.receive_text(), width).decode())
    except WebSocketDisconnect:
        pass


if __name__ == "__main__":
    serve(echo(int(sys.argv[1])))
