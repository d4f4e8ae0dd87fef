"""A small reverse proxy that serves a server under a prefix, as haproxy or nginx would."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit


@contextmanager
def running_proxy(upstream: str, prefix: str) -> Iterator[str]:
    """Serve `upstream` under a prefix, which is removed from the paths; yield the URL of the proxy."""
    target = urlsplit(upstream)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=_accept, args=[listening, (target.hostname, target.port), prefix], daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}{prefix}"
        listening.shutdown(socket.SHUT_RDWR)


def _accept(listening: socket.socket, target: tuple[str | None, int | None], prefix: str) -> None:
    with suppress(OSError):
        while True:
            client, _ = listening.accept()
            threading.Thread(target=_serve, args=[client, target, prefix], daemon=True).start()


def _serve(client: socket.socket, target: tuple[str, int], prefix: str) -> None:
    """Forward one request; the connection ends with its answer, unless it is a WebSocket."""
    with client, suppress(OSError):
        received = b""
        while b"\r\n\r\n" not in received:
            chunk = client.recv(65536)
            if not chunk:
                return
            received += chunk
        head, body = received.split(b"\r\n\r\n", 1)
        method, path, rest = head.split(b" ", 2)
        if not path.startswith(prefix.encode() + b"/"):
            client.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        if b"\r\nupgrade:" not in head.lower():
            rest = rest.replace(b"Connection: keep-alive", b"Connection: close")
            rest = rest.replace(b"connection: keep-alive", b"connection: close")
        with socket.create_connection(target) as server:
            server.sendall(b" ".join([method, path.removeprefix(prefix.encode()), rest]) + b"\r\n\r\n" + body)
            threading.Thread(target=_pump, args=[client, server], daemon=True).start()
            _pump(server, client)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(65536):
            sink.sendall(chunk)
        sink.shutdown(socket.SHUT_WR)
