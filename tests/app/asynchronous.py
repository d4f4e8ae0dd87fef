"""What tests of coroutines share."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 20))


async def until(holds: Callable[[], object]) -> None:
    while not holds():  # noqa: ASYNC110 - what tests wait for has no event of its own
        await asyncio.sleep(0.001)
