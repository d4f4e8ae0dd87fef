"""The outcome of a task of a session: a result, or the error for the client."""

import asyncio
import logging
from typing import TypeVar

from app.errors import EngramError, stopping, unexpected_error

T = TypeVar("T")

logger = logging.getLogger(__name__)


def outcome_of_task(task: "asyncio.Task[T]") -> T | EngramError:
    """Return the result or the error of a task that has ended."""
    if task.cancelled():
        return stopping()
    error = task.exception()
    return task.result() if error is None else as_engram_error(error)


def as_engram_error(error: BaseException) -> EngramError:
    """Return the error for the client: an EngramError as it is; any other is logged, and answered as unexpected."""
    if isinstance(error, EngramError):
        return error
    logger.error("a step failed", exc_info=error)
    return unexpected_error()
