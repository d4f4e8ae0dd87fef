"""Resolve what asyncio waits for, and call observers."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)


def settle(waiter: "asyncio.Future[Any]", outcome: Any) -> None:
    """Give a waiter its result or its exception, unless it has one or was cancelled."""
    if waiter.done():
        return
    if isinstance(outcome, Exception):
        waiter.set_exception(outcome)
        waiter.exception()  # seen, even if nobody waits any more
    else:
        waiter.set_result(outcome)


def report(observe: Callable[..., None], *arguments: Any) -> None:
    """Call a method of an observer; an error of its own is logged and stops nothing."""
    try:
        observe(*arguments)
    except Exception:
        logger.exception("an observer failed")
