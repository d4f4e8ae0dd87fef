"""Helpers for tests of coroutines."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run a test in an event loop, for at most 20 s."""
    asyncio.run(asyncio.wait_for(test, 20))


async def until(holds: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    while not holds():  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(0.001)
