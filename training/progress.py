"""Progress on the error output: a bar on a terminal; in a log, a plain line now and then."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

LINE_SECONDS = 10.0
LINE = "{desc}: {percentage:.0f}%, {n_fmt} of {total_fmt} {unit}, {elapsed} gone, {remaining} left, {rate_fmt}{postfix}"


class _Lines:
    """An error output for tqdm: each text is a line of its own, without codes that move a terminal's cursor."""

    def write(self, text: str) -> None:
        if text.strip():
            sys.stderr.write(f"{text.strip()}\n")

    def flush(self) -> None:
        sys.stderr.flush()


def progress_bar(**options: Any) -> tqdm:
    """Return a tqdm with these options; without a terminal it writes a line every LINE_SECONDS."""
    if sys.stderr.isatty():
        return tqdm(**options)
    plain = {"file": _Lines(), "position": 0, "mininterval": LINE_SECONDS, "miniters": 1, "bar_format": LINE}
    return tqdm(**options | plain | {"dynamic_ncols": False})


@contextmanager
def counting(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function (done, total) that shows the progress; the bar appears with its first call."""
    bar: tqdm | None = None

    def show(done: int, total: int) -> None:
        nonlocal bar
        if bar is None:
            bar = progress_bar(desc=what, unit=unit, leave=False, delay=0 if sys.stderr.isatty() else LINE_SECONDS)
        bar.total = total
        bar.update(done - bar.n)

    try:
        yield show
    finally:
        if bar is not None:
            bar.close()
