"""Find damage in the embedded store's file: rows whose checksum is wrong, and rows that do not fit together."""

import math
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from app.stores.sqlite.rows import ClockRow, SessionRow, TapeRow, is_whole_log, is_whole_snapshot, whole


class Fault(NamedTuple):
    """Damage on a tape: it harms the sessions that need the tape's steps after `step`."""

    step: int
    what: str


class Damage:
    """Looks through a file once; nobody changes it meanwhile."""

    def __init__(self, database: sqlite3.Connection, path: Path) -> None:
        self._database = database
        self._path = path
        self._tapes: dict[int, TapeRow | None] = {}
        self._faults: dict[int, list[Fault]] = {}
        """The records of the tapes that were looked at."""
        self._sound: set[int] = set()
        """Tapes without a fault that begin with such tapes only."""
        self._unread: list[str] = []
        """Lines for all that SQLite could not read."""

    def find(self, progress: Callable[[int, int], None]) -> Iterator[str]:
        """Yield a line for everything that is damaged; call `progress` with the open sessions done, and with all."""
        for (line,) in self._read("PRAGMA integrity_check"):
            if line != "ok":
                yield f"{self._path}: {line}"
        self._tapes = {row[0]: whole(TapeRow, row) for row in self._read("SELECT * FROM tapes")}
        opened = self._read("SELECT * FROM sessions WHERE ended IS NULL ORDER BY id")
        for done, values in enumerate(opened):
            progress(done, len(opened))
            yield from self._of_session(values)
        progress(len(opened), len(opened))
        for values in self._read("SELECT * FROM sessions WHERE ended IS NOT NULL ORDER BY id"):
            yield from self._of_session(values)
        yield from self._unreached()
        for values in self._read("SELECT * FROM clock"):
            if whole(ClockRow, values) is None:
                yield "the time at which the last server ran: its row is damaged"
        yield from self._unread

    def _read(self, statement: str) -> list[Any]:
        """Return the rows of a statement up to the first that SQLite cannot read, which is noted."""
        rows: list[Any] = []
        try:
            rows.extend(self._database.execute(statement))  # one by one: those before a damaged page count
        except sqlite3.Error as error:
            self._unread.append(f"{self._path}: {statement}: {error}")
        return rows

    def _of_session(self, values: Sequence[Any]) -> Iterator[str]:
        row = whole(SessionRow, values)
        if row is None:
            yield f"session {values[0]}: its row is damaged"
        elif row.tape is not None:
            yield from (f"session {row.id}: {what}" for what in self._on_line(row.tape))

    def _on_line(self, number: int) -> Iterator[str]:
        """Yield the damage in the past of a session on a tape."""
        line: list[int] = []
        is_sound, stop, part = True, math.inf, cast(int | None, number)
        while part is not None and part not in self._sound:
            line.append(part)
            faults = self._faults_of(part)
            yield from (fault.what for fault in faults if fault.step < stop)
            row = self._tapes.get(part)
            if row is None:
                return
            is_sound = is_sound and not faults
            stop, part = min(stop, row.base), row.parent
        if is_sound:
            self._sound.update(line)

    def _faults_of(self, number: int) -> list[Fault]:
        """Return the damage on one tape."""
        if number not in self._faults:
            row = self._tapes.get(number)
            try:
                self._faults[number] = (
                    [*self._in_log(row), *self._in_snapshots(row)]
                    if row is not None
                    else [Fault(-1, f"its tape {number} is damaged or missing")]
                )
            except sqlite3.Error as error:
                self._faults[number] = [Fault(-1, f"tape {number} cannot be read: {error}")]
        return self._faults[number]

    def _in_log(self, row: TapeRow) -> Iterator[Fault]:
        log = self._database.execute(
            "SELECT step, steps, entries, inputs, checksum FROM log WHERE tape = ? ORDER BY step", (row.number,)
        )
        at: int | None = max(row.base, row.first)
        for number, (step, steps, entries, inputs, written) in enumerate(log):
            if not is_whole_log(row.number, step, steps, entries, inputs, written):
                yield Fault(_number(step), f"the log of tape {row.number} is damaged at step {step}")
                at = None  # how far that row led is not known
                continue
            begins_before = number == 0 and at is not None and step < at < step + steps
            if at is not None and step != at and not begins_before:
                yield Fault(min(at, step), f"the log of tape {row.number} goes on at step {step} after step {at}")
            at = step + steps
        if at is not None and at < row.stop:
            yield Fault(at, f"its log ends at step {at}, but it was at {row.stop}")

    def _in_snapshots(self, row: TapeRow) -> Iterator[Fault]:
        snapshots = self._database.execute(
            "SELECT step, taken, passing, state, checksum FROM snapshots WHERE tape = ?", (row.number,)
        )
        found = set()
        for step, *values in snapshots:
            found.add(step)
            if not is_whole_snapshot(row.number, step, *values):
                yield Fault(_number(step) - 1, f"its snapshot at step {step} is damaged")
        if row.first and row.first not in found:
            yield Fault(row.first, f"its snapshot at step {row.first} is missing, where its past begins")

    def _unreached(self) -> Iterator[str]:
        """Yield a line for each tape or row that no session reaches."""
        for number, row in self._tapes.items():
            if number not in self._faults:
                yield f"tape {number}: {'its row is damaged' if row is None else 'no session reaches it'}"
        for table in ("log", "snapshots"):
            rows = self._read(f"SELECT tape FROM {table} EXCEPT SELECT number FROM tapes")  # noqa: S608
            yield from (f"tape {number}: there are rows of it in {table}, but no such tape" for (number,) in rows)


def _number(step: object) -> int:
    """Return a step that was read from a damaged row as a number."""
    return step if isinstance(step, int) else 0
