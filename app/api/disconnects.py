"""Clients that go away while their requests are worked on."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

T = TypeVar("T")

WATCHED_AFTER = 0.01
"""Seconds after which the client of a request is watched."""


async def unless_disconnected(request: Request, work: Awaitable[T]) -> T:
    """Return the result of `work`, which is cancelled if the client goes away. Raises ClientDisconnect."""
    watch = _Watch(request)
    try:
        return await work
    except asyncio.CancelledError:
        if not watch.is_gone:
            raise
        raise ClientDisconnect from None
    finally:
        watch.end()


class _Watch:
    """Cancels the task that creates it if the client goes away before `end`.

    It begins after WATCHED_AFTER seconds, because most requests are answered sooner. It then also notices a client that
    went away before.
    """

    def __init__(self, request: Request) -> None:
        work = asyncio.current_task()
        assert work is not None, "a request is answered by a task"
        self.is_gone = False
        self._request = request
        self._work = work
        self._task: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(WATCHED_AFTER, self._begin)

    def _begin(self) -> None:
        self._task = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._request.receive())["type"] != "http.disconnect":
            pass
        self.is_gone = True
        self._work.cancel()

    def end(self) -> None:
        """Stop watching, and undo the cancellation."""
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        if self.is_gone:
            self._work.uncancel()
