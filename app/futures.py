"""Resolve asyncio futures, begin tasks that nobody waits for, and call observers."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

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


def begin(work: Coroutine[Any, Any, T], running: "set[asyncio.Task[T]]") -> "asyncio.Task[T]":
    """Do work in a task, which is in `running` until it is done: the event loop alone does not keep it alive."""
    task = asyncio.ensure_future(work)
    running.add(task)
    task.add_done_callback(running.discard)
    return task


def report(observe: Callable[..., None], *arguments: Any) -> None:
    """Call a method of an observer, and log its error, if any."""
    try:
        observe(*arguments)
    except Exception:
        logger.exception("an observer failed")
