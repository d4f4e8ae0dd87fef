"""Resolve asyncio futures, and call observers."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)


def resolve(waiter: "asyncio.Future[Any]", outcome: Any) -> None:
    """Set the result or the exception of a future, unless it is done or cancelled."""
    if waiter.done():
        return
    if isinstance(outcome, Exception):
        waiter.set_exception(outcome)
        waiter.exception()  # retrieved, so that asyncio does not log it if nobody waits
    else:
        waiter.set_result(outcome)


def report(observe: Callable[..., None], *arguments: Any) -> None:
    """Call a method of an observer, and log its error, if any."""
    try:
        observe(*arguments)
    except Exception:
        logger.exception("an observer failed")
