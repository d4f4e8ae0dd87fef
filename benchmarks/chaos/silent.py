"""A TCP proxy in front of a database, which goes silent or drops its connections on demand.

    server ----> link ----> database        forwarding
    server ----> |    ----> database        silent: nothing passes, every connection stays open, none is accepted

What was sent while it was silent is forwarded afterwards, as by a network that heals: also a write that the server gave
up long ago.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Self

CHUNK = 2**16
"""Bytes forwarded at once, at most."""


class Link:
    """A proxy of a port of 127.0.0.1, in a thread of its own as long as the context lasts.

    target: the port that it forwards to, which may change; port: its own.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self._ends: set[asyncio.StreamWriter] = set()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="link", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._listening.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._over.set)
        self._thread.join()

    def silence(self) -> None:
        """Forward nothing from now on."""
        self._call(self._forwarding.clear)

    def resume(self) -> None:
        """Forward again, first what came in meanwhile."""
        self._call(self._forwarding.set)

    def drop(self) -> None:
        """Abort all connections, at both of their ends."""
        self._call(self._abort)

    def _call(self, function: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(function)

    async def _run(self) -> None:
        self._loop, self._over, self._forwarding = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
        self._forwarding.set()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._over.wait()
        server.close()
        self._abort()

    def _abort(self) -> None:
        for end in self._ends:
            end.transport.abort()

    @contextmanager
    def _watched(self, end: asyncio.StreamWriter) -> Iterator[None]:
        """Count an end of a connection among those that `drop` aborts, and close it."""
        self._ends.add(end)
        try:
            yield
        finally:
            self._ends.discard(end)
            end.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward a connection in both directions until one of its ends closes it."""
        with self._watched(writer), suppress(OSError):
            await self._forwarding.wait()
            replies, onwards = await asyncio.open_connection("127.0.0.1", self.target)
            with self._watched(onwards):
                await asyncio.gather(self._pump(reader, onwards), self._pump(replies, writer))

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Forward one direction, its end included."""
        while chunk := await source.read(CHUNK):
            await self._forwarding.wait()
            sink.write(chunk)
            await sink.drain()
        await self._forwarding.wait()
        sink.close()
