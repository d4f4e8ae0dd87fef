"""Servers to compare with, simpler than Engram, each a process: python -m benchmarks.floors.echo, and so on.

    echo            uvicorn decodes a frame or a POST, cuts the inputs to the outputs' width, encodes them: no model
    picows_echo     the same frames by picows, a WebSocket server in C
    plain           FastAPI, the torch model, a dictionary of states: an hour's work
    triton          NVIDIA Triton with its Python back end and the torch model
    litserve        LitServe with one worker and the torch model
    ray_serve       Ray Serve with one replica and the torch model

Each listens on a free port of 127.0.0.1 and prints it on stderr.
"""

import urllib.error
import urllib.request
from typing import Any

import uvicorn


def serve(app: Any) -> None:
    """Serve an ASGI application by uvicorn with Engram's settings."""
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=0,
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        access_log=False,
        log_level="info",
    )


def is_ready(port: int, path: str) -> bool:
    """Return whether a server of 127.0.0.1 answers a GET with 200."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError):
        return False
