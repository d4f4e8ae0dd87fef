"""Progress on the error output: a bar on a terminal; in a log, a plain line now and then."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

LINE_SECONDS = 10.0
LINE = "{desc}: {percentage:.0f}%, {n_fmt} of {total_fmt} {unit}, {elapsed} gone, {remaining} left, {rate_fmt}{postfix}"
COUNT_LINE = "{desc}: {n_fmt} {unit}, {elapsed} gone, {rate_fmt}{postfix}"
"""The line of a progress whose total is not known."""


class _Lines:
    """An error output for tqdm: each text is a line of its own, without codes that move a terminal's cursor."""

    def write(self, text: str) -> None:
        if text.strip():
            sys.stderr.write(f"{text.strip()}\n")

    def flush(self) -> None:
        sys.stderr.flush()


def progress_bar(**options: Any) -> tqdm:
    """Return a tqdm with these options; without a terminal it writes a line every LINE_SECONDS.

    The first line is written at once, but by a bar that is not left in place (leave=False) only after LINE_SECONDS.
    """
    if sys.stderr.isatty():
        return tqdm(**options)
    has_total = options.get("total") is not None or hasattr(options.get("iterable"), "__len__")
    plain = {"file": _Lines(), "position": 0, "mininterval": LINE_SECONDS, "miniters": 1, "dynamic_ncols": False}
    plain |= {"bar_format": LINE if has_total else COUNT_LINE}
    return tqdm(**options | plain | {"delay": 0 if options.get("leave", True) else LINE_SECONDS})


@contextmanager
def counting(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function (done, total) that shows the progress; the bar appears with its first call."""
    bar: tqdm | None = None

    def show(done: int, total: int) -> None:
        nonlocal bar
        if bar is None:
            bar = progress_bar(desc=what, unit=unit, total=total, leave=False)
        bar.total = total
        bar.update(done - bar.n)

    try:
        yield show
    finally:
        if bar is not None:
            bar.close()
