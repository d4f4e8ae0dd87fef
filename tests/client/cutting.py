"""A proxy that cuts connections."""

import select
import socket
import struct
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tests.app.harness import Server


@dataclass
class Cut:
    """End a connection, by a reset, at the nth chunk that comes from one side; `keep` bytes of it still pass."""

    side: str
    """client or server."""
    nth: int
    keep: int = 0


class Proxy:
    """A TCP proxy that makes one cut after the other, each counted from the last; then all passes.

    A chunk of the server's that is cut off was sent when everything before it was done: its step was carried out.
    """

    def __init__(self, server_url: str, cuts: Sequence[Cut]) -> None:
        host, port = server_url.removeprefix("http://").split(":")
        self._server = (host, int(port))
        self.cuts = deque(cuts)
        self._seen = 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._server) as server:
            other = {client: server, server: client}
            for end in other:
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                passing = True
                while passing:
                    ready = select.select(other, [], [])[0]
                    passing = all(self._pass(source, other[source], source is client) for source in ready)
            except ConnectionError:
                pass

    def _pass(self, source: socket.socket, target: socket.socket, from_client: bool) -> bool:
        """Pass a chunk on. Return whether the connection goes on."""
        chunk = source.recv(1 << 16)
        cut = self._cut("client" if from_client else "server") if chunk else None
        target.sendall(chunk[: cut.keep] if cut else chunk)
        if cut:
            for end in (source, target):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return bool(chunk) and cut is None

    def _cut(self, side: str) -> Cut | None:
        with self._lock:
            if not self.cuts or self.cuts[0].side != side:
                return None
            self._seen += 1
            if self._seen < self.cuts[0].nth:
                return None
            self._seen = 0
            return self.cuts.popleft()


@contextmanager
def proxy_before(server: Server, cuts: Sequence[Cut]) -> Iterator[Proxy]:
    proxy = Proxy(server.url, cuts)
    try:
        yield proxy
    finally:
        proxy.close()
