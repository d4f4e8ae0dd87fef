"""Kinds of errors."""

from collections.abc import Iterator


def subclasses(kind: type[Exception]) -> Iterator[type[Exception]]:
    """Yield a kind of errors, and all kinds below it."""
    yield kind
    for below in kind.__subclasses__():
        yield from subclasses(below)
