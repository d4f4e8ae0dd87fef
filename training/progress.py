"""Progress on the error output: a bar on a terminal; elsewhere, as in a log, a plain line now and then."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

LINE_SECONDS = 10.0
LINE = "{desc}: {percentage:.0f}%, {n_fmt} of {total_fmt} {unit}, {elapsed} gone, {remaining} left, {rate_fmt}{postfix}"


class _Lines:
    """The error output as tqdm writes to it, each text a line of its own, without what moves a terminal's cursor."""

    def write(self, text: str) -> None:
        if text.strip():
            sys.stderr.write(f"{text.strip()}\n")

    def flush(self) -> None:
        sys.stderr.flush()


def progress_bar(**options: Any) -> tqdm:
    """Return a tqdm of these options; where there is no terminal, it writes a line every LINE_SECONDS."""
    if sys.stderr.isatty():
        return tqdm(**options)
    plain = {"file": _Lines(), "position": 0, "mininterval": LINE_SECONDS, "miniters": 1, "bar_format": LINE}
    return tqdm(**options | plain | {"dynamic_ncols": False})


@contextmanager
def counting(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function of how much is done, and of how much, which shows it from its first call on."""
    bar: tqdm | None = None

    def tell(done: int, total: int) -> None:
        nonlocal bar
        if bar is None:
            bar = progress_bar(desc=what, unit=unit, leave=False, delay=0 if sys.stderr.isatty() else LINE_SECONDS)
        bar.total = total
        bar.update(done - bar.n)

    try:
        yield tell
    finally:
        if bar is not None:
            bar.close()
