"""Clients that go away while their requests are worked on."""

import asyncio
from typing import Any

import pytest
from fastapi import Request
from starlette.requests import ClientDisconnect

from app.api.disconnects import unless_disconnected
from tests.app.asynchronous import run


def request_of(*messages: str) -> Request:
    """Return a request whose client sends these messages, and then nothing."""
    coming = list(messages)

    async def receive() -> dict[str, Any]:
        return {"type": coming.pop(0)} if coming else await asyncio.Event().wait()

    return Request({"type": "http", "headers": []}, receive)


def test_gone_client_cancels_the_work_but_not_the_task():
    async def test() -> None:
        work = asyncio.get_running_loop().create_future()
        with pytest.raises(ClientDisconnect):
            await unless_disconnected(request_of("http.request", "http.disconnect"), work)
        await asyncio.sleep(0)
        assert (work.cancelled(), asyncio.current_task().cancelling()) == (True, 0)

    run(test())


@pytest.mark.parametrize("seconds", [0, 0.05])
def test_work_of_waiting_client_returns_its_result(seconds):
    async def test() -> None:
        before = asyncio.all_tasks()
        assert await unless_disconnected(request_of(), asyncio.sleep(seconds, "done")) == "done"
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == before

    run(test())


def test_work_that_is_cancelled_by_others_stays_cancelled():
    async def test() -> None:
        task = asyncio.ensure_future(unless_disconnected(request_of(), asyncio.sleep(60)))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(test())
