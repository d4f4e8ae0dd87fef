"""Frames echoed by picows: python -m benchmarks.floors.picows_echo WIDTH. Needs pip install picows==2.3.1."""

import sys
from typing import Any

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_create_server

from benchmarks.floors.frames import echo_json, echo_msgpack


class _Echo(WSListener):  # type: ignore[misc]
    def __init__(self, width: int) -> None:
        self._width = width

    def on_ws_connected(self, transport: WSTransport) -> None:
        transport.send(WSMsgType.TEXT, b"{}")  # the greeting

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            transport.send(WSMsgType.TEXT, echo_json(frame.get_payload_as_bytes(), self._width))
        elif frame.msg_type == WSMsgType.BINARY:
            transport.send(WSMsgType.BINARY, echo_msgpack(frame.get_payload_as_bytes(), self._width))
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.disconnect()


async def _serve(width: int) -> None:
    def listener(_: Any) -> _Echo:
        return _Echo(width)

    server = await ws_create_server(listener, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    sys.stderr.write(f"picows listens on http://127.0.0.1:{port} (end it by a signal)\n")
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
