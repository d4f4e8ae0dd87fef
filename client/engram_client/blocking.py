"""Coroutines over a wire that blocks the thread: they never suspend, and run without an event loop."""

from collections.abc import AsyncGenerator, Coroutine, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


def now(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine over a blocking wire."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise RuntimeError("a wire that blocks does not suspend")


def iterate(source: AsyncGenerator[T, None]) -> Iterator[T]:
    """Yield the items of an asynchronous generator over a blocking wire."""
    try:
        while True:
            try:
                item = now(source.__anext__())
            except StopAsyncIteration:
                return
            yield item
    finally:
        now(source.aclose())
