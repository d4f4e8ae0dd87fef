"""The log of tapes, read: the rows of the table `log`, and behind them those that are in the journal."""

from collections.abc import Iterator
from itertools import chain, pairwise, takewhile

from app.errors import SessionDamaged
from app.stores.base import LoggedSteps
from app.stores.sqlite.database import Database
from app.stores.sqlite.journal import JournalTable
from app.stores.sqlite.rows import LogRow, entries_of, is_whole_log

ROWS = """
SELECT * FROM log WHERE tape = ?1 AND step < ?2 AND step >=
coalesce((SELECT max(step) FROM log WHERE tape = ?1 AND step <= ?3), ?3) ORDER BY step
"""
"""The rows of a tape with the steps after ?3, up to ?2."""

NO_ROW = LogRow(0, 0, 0, b"", b"", 0)
"""Behind the last row of a log."""


class Log:
    """Reads the log of one tape, without those of the tapes that it begins with."""

    def __init__(self, database: Database, journal: JournalTable) -> None:
        self._database = database
        self._journal = journal

    def steps(self, tape: int, start: int, stop: int) -> Iterator[LoggedSteps]:
        """Yield the log of one tape from the step `start` up to `stop`.

        Raises SessionDamaged where a row is damaged, or does not begin where the last one ended.
        """
        for row, following in pairwise(chain(self._rows(tape, start, stop), (NO_ROW,))):
            self._check(row)
            end = row.step + row.steps
            if not row.step <= start < end or (following is not NO_ROW and following.step != end):
                raise self._damaged(tape, start)
            for step, steps, seq, inputs in takewhile(lambda entry: entry[0] < stop, entries_of(row)):
                first, last, width = max(step, start), min(step + steps, stop), len(inputs) // steps
                if first < last:
                    yield LoggedSteps(first, last - first, inputs[(first - step) * width : (last - step) * width], seq)
            start = min(end, stop)
        if start < stop:
            raise self._damaged(tape, start)

    def backwards(self, tape: int) -> Iterator[LoggedSteps]:
        """Yield the entries of one tape, the last one first. Raises SessionDamaged."""
        for row in self._rows_backwards(tape):
            self._check(row)
            for step, steps, seq, inputs in reversed([*entries_of(row)]):
                yield LoggedSteps(step, steps, inputs, seq)

    def _rows(self, tape: int, start: int, stop: int) -> Iterator[LogRow]:
        """Yield the rows of one tape with the steps after `start`, up to `stop`: of the log, then of the journal."""
        tail = self._journal.tail(tape)
        folded = stop if tail is None else min(stop, tail.row.stop)
        if start < folded:
            yield from map(LogRow._make, self._database.rows(ROWS, tape, folded, start))
        if tail is not None and folded < stop:
            yield from tail.span(start, stop)

    def _rows_backwards(self, tape: int) -> Iterator[LogRow]:
        """Yield all rows of one tape, the last one first."""
        tail = self._journal.tail(tape)
        if tail is not None:
            yield from reversed(tail.rows())
        yield from map(LogRow._make, self._database.rows("SELECT * FROM log WHERE tape = ? ORDER BY step DESC", tape))

    def _check(self, row: LogRow) -> None:
        if not is_whole_log(*row):
            raise self._damaged(row.tape, row.step)

    def _damaged(self, tape: int, step: int) -> SessionDamaged:
        return SessionDamaged(f"{self._database.path}: the log of tape {tape} is damaged at step {step}")
