"""The tapes of the embedded store: which tape begins with which, and which one has a step.

    root      |----------------------|                      a line: a tape, its parent, ..., its root
    parent          base '-------------|
    tape                     base '--------->               bases grow along a line: a tape's parent has the last step
                                                            up to its base

Lines may be thousands of tapes long, so no method follows one from tape to tape. The first step that is kept is a
column of the root, which every tape knows. A tape with a certain step is found by jumps: each tape knows its parent and
one tape further up, chosen so that a search takes a number of reads that grows with the logarithm of the depth (Myers,
"An applicative random-access stack", 1983).
"""

import logging
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from app.errors import SessionDamaged
from app.stores.sqlite.journal import JournalTable
from app.stores.sqlite.rows import TapeRow, checksum, insert_into, update_of, whole

logger = logging.getLogger(__name__)

INSERT = insert_into("tapes", TapeRow)
UPDATE = update_of("tapes", TapeRow)

DESCENDANTS = """
WITH RECURSIVE descendants(number) AS (
    SELECT number FROM tapes WHERE parent = ?
    UNION
    SELECT tapes.number FROM tapes JOIN descendants ON parent = descendants.number
)
SELECT tapes.* FROM descendants JOIN tapes USING (number)
"""

AHEAD = 64
"""Steps for which `parts` looks up the tapes at a time; each may be on a tape of its own."""

LARGEST_NUMBER = 2**62
"""No tape has a higher number, but for one that is damaged."""


class Tapes:
    """The table `tapes`. Its methods are part of the caller's transaction."""

    def __init__(self, database: sqlite3.Connection, path: Path, journal: JournalTable, grows: bool = True) -> None:
        """journal: has entries that are not in the log yet. grows: whether tapes are to be added; if not, nothing is
        read now.
        """
        self._database = database
        self._journal = journal
        self._path = path
        columns = ("tapes.number", "log.tape", "snapshots.tape", "sessions.tape") if grows else ()
        self._last = max(map(self._highest_number, columns), default=0)

    def new_number(self) -> int:
        """Return a number that no tape has had since the store was opened."""
        self._last += 1
        return self._last

    def note_number(self, number: int) -> None:
        """Note that a tape has a number, which no other may get."""
        self._last = max(self._last, number)

    def find(self, number: int | None) -> TapeRow | None:
        """Return a tape, unless there is none or its row is damaged."""
        return self._journal.tape(number)

    def known(self, number: int) -> TapeRow | None:
        """Return a tape, None where there is none. Raises SessionDamaged where its row is damaged."""
        row = self.find(number)
        if row is None and self._row("SELECT 1 FROM tapes WHERE number = ?", number):
            raise self.damaged(number)
        return row

    def get(self, number: int) -> TapeRow:
        """Return a tape. Raises SessionDamaged where its row is missing or damaged."""
        row = self.find(number)
        if row is None:
            raise self.damaged(number)
        return row

    def damaged(self, number: int | None) -> SessionDamaged:
        """Return the error for a tape that is missing or damaged."""
        return SessionDamaged(f"{self._path}: tape {number} is damaged or missing; engram check lists what is damaged")

    def begin(
        self, number: int, parent: TapeRow | None, base: int, first: int = 0, seq: int | None = None, epoch: int = 1
    ) -> None:
        """Write a new tape that begins with another up to the step `base`; first: the first step kept of a new root.

        It begins with that tape of the line that has the last step up to `base`: no tape is kept only because it leads
        to another.
        """
        holder = self.with_step(parent, base)[0] if parent is not None and base else None
        if holder is None:
            row = TapeRow(number, number, None, base, number, 0, first, base, None, seq, epoch)
        else:
            jump, depth = jump_under(holder, self.find), holder.depth + 1
            row = TapeRow(number, holder.root, holder.number, base, jump, depth, 0, base, None, seq, epoch)
        self._database.execute(INSERT, (*row, checksum(row)))

    def update(self, row: TapeRow) -> None:
        """Write a tape that was found and changed, after its entries are in the log."""
        self._journal.fold(row.number)
        self._database.execute(UPDATE, (*row[1:], checksum(row), row.number))

    def oldest(self, row: TapeRow) -> int:
        """Return the first step, but for 0, that can be gone back to. Raises SessionDamaged."""
        return row.first if row.root == row.number else self.get(row.root).first

    def with_step(self, row: TapeRow, step: int) -> tuple[TapeRow, int]:
        """Return which tape of a line has a step, and up to which step the line goes on with that tape.

        Steps are counted from 1. A step that is older than the root gives the root.
        """
        if row.base < step or row.parent is None:
            return row, row.stop
        while True:
            jump = self.find(row.jump)  # beyond the root, where the line was cut since
            if jump is not None and jump.base >= step and jump.number != row.number and jump.root == row.root:
                row = jump
                continue
            if row.parent is None:
                return row, row.base
            parent = self.get(row.parent)
            if parent.base < step:
                return parent, row.base
            row = parent

    def parts(self, row: TapeRow, start: int, stop: int) -> Iterator[tuple[TapeRow, int, int]]:
        """Yield the tapes with the steps after `start`, up to `stop`, each with the span of those that it has.

        It takes reads for the tapes that are yielded, and a few more at a time, however long the line is.
        """
        while start < stop:
            tape, end = self.with_step(row, min(stop, start + AHEAD))
            span = [(tape, min(end, stop))]
            while tape.base > start and tape.parent is not None:
                span.append((parent := self.get(tape.parent), tape.base))
                tape = parent
            for tape, end in reversed(span):
                yield tape, start, end
                start = end

    def upwards(self, row: TapeRow, step: int) -> Iterator[tuple[TapeRow, int]]:
        """Yield the tapes of a line that lead to a step, the last first, each with the step up to which it does.

        First comes the tape itself, where a session that was rewound to before its base has its snapshot.
        """
        if row.base > step:
            yield row, step
            row, _ = self.with_step(row, step + 1)
        while True:
            yield row, step
            if row.parent is None:
                return
            step = min(step, row.base)
            row = self.get(row.parent)

    def shared(self, row: TapeRow) -> int | None:
        """Return the first step of a tape that others share: where another begins, or a session is. None for none.

        A session that was rewound counts wherever it is among the tapes with this root.
        """
        (base,) = self._row("SELECT min(base) FROM tapes WHERE parent = ?", row.number)
        (head,) = self._row("SELECT min(head) FROM tapes WHERE root = ? AND head IS NOT NULL", row.root)
        return min((step for step in (base, head) if step is not None), default=None)

    def cut(self, row: TapeRow, step: int) -> None:
        """Let a tape begin at `step`, where it has a snapshot, as a root."""
        self._journal.fold(row.number)
        self._database.execute("DELETE FROM log WHERE tape = ? AND step + steps <= ?", (row.number, step))
        self._database.execute("DELETE FROM snapshots WHERE tape = ? AND step < ?", (row.number, step))
        self.update(row._replace(root=row.number, parent=None, jump=row.number, first=step))
        if row.parent is not None:
            self._set_root_of_descendants(row.number)
            self.collect(row.parent)

    def collect(self, number: int | None) -> None:
        """Delete what no session can reach any more of a tape, and of those that it began with.

        A tape that is damaged stays as it is, and so do those that it began with. One that becomes shorter has a new
        epoch, so that entries which are still in the journal are known to be old.
        """
        while number is not None and self._row("SELECT 1 FROM sessions WHERE tape = ?", number) is None:
            row = self.find(number)
            if row is None:
                logger.error("%s: tape %d is damaged, and not deleted", self._path, number)
                return
            (last,) = self._row("SELECT max(base) FROM tapes WHERE parent = ?", number)
            self._database.execute("DELETE FROM log WHERE tape = ? AND step >= ?", (number, last or 0))
            self._database.execute(
                "DELETE FROM snapshots WHERE tape = ? AND step > ?", (number, -1 if last is None else last)
            )
            if last is not None:
                self.update(row._replace(stop=min(row.stop, last), head=None, epoch=row.epoch + 1))
                return
            self._database.execute("DELETE FROM tapes WHERE number = ?", (number,))
            number = row.parent

    def _set_root_of_descendants(self, number: int) -> None:
        """Make a tape the root of its descendants: all that begin with it, directly or by way of others."""
        for values in self._database.execute(DESCENDANTS, (number,)).fetchall():
            row = whole(TapeRow, values)
            if row is not None:
                self.update(self._journal.now(row)._replace(root=number))

    def _highest_number(self, column: str) -> int:
        table, name = column.split(".")
        (highest,) = self._row(f"SELECT max({name}) FROM {table} WHERE {name} < ?", LARGEST_NUMBER)  # noqa: S608
        return highest or 0

    def _row(self, statement: str, *values: Any) -> Any:
        return self._database.execute(statement, values).fetchone()


def jump_under(parent: TapeRow, find: Callable[[int], TapeRow | None]) -> int:
    """Return which tape a new one jumps to that begins with `parent`.

    Jumps go over 1, 3, 7, 15, ... tapes, as the digits of the depth in a skew binary system say.
    """
    near = find(parent.jump)
    far = find(near.jump) if near is not None else None
    if near is None or far is None or parent.depth - near.depth != near.depth - far.depth:
        return parent.number
    return far.number
