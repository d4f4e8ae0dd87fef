"""What those who wait in the event loop are given."""

import asyncio
from typing import Any


def settle(waiter: "asyncio.Future[Any]", outcome: Any) -> None:
    """Give a waiter its result or its exception, unless it has one or was cancelled."""
    if waiter.done():
        return
    if isinstance(outcome, Exception):
        waiter.set_exception(outcome)
        waiter.exception()  # seen, even if nobody waits any more
    else:
        waiter.set_result(outcome)
