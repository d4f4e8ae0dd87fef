"""The journal of the embedded store: steps that are committed and not in the log yet.

    append --> journal    | commit | commit | commit |      a row for each commit, whatever sessions are in it
                 |
                fold
                 |
                 '----->  log   tape 1 |--------|-----|     a row for many entries of a tape
                                tape 2 |-----|

A commit that adds a row to the log for each of 64 sessions writes 64 pages; one that adds a row to the journal writes
two or three. Later the entries are folded: moved into the log, many of a tape in one row. Until then they are in memory
too, in the tail of their tape, and are read from there. A store that is opened folds the journal that it finds.

A row of the journal is deleted when all of its entries are folded. A store that is opened may find a row of which some
entries were folded before: their tape has gone on since, its epoch is another one, or it is gone.
"""

import logging
import math
import struct
from collections import deque
from collections.abc import Collection, Sequence
from itertools import accumulate, chain, islice, takewhile
from pathlib import Path
from sqlite3 import Connection
from typing import Any, NamedTuple

from app.stores.base import Entry
from app.stores.sqlite.rows import ENTRY_KEY, TapeRow, checksum, entry_checksum, journal_checksum, whole
from app.stores.sqlite.tail import NO_CHECKSUM, Tail

logger = logging.getLogger(__name__)

AFTER_KEY = struct.Struct("<qII")
HEAD = struct.Struct(ENTRY_KEY.format + AFTER_KEY.format[1:])
"""The fields of an entry: ENTRY_KEY, its epoch, the bytes of its inputs, its checksum."""

NUMBER = struct.Struct("<q")

ROWS = "SELECT * FROM journal ORDER BY number"
ADD = "INSERT INTO journal VALUES (?, ?, ?, ?, ?)"
ADD_TO_LOG = "INSERT OR REPLACE INTO log VALUES (?, ?, ?, ?, ?, ?)"
"""A damaged row may lie there."""
ADVANCE = "UPDATE tapes SET stop = ?, seq = ?, checksum = ? WHERE number = ?"

JOURNAL_BYTES = 2**22
"""Size of the journal beyond which it is folded, a part after each commit."""

OVERDUE_BYTES = 4 * JOURNAL_BYTES
"""Size of the journal beyond which nothing is added before a part is folded."""

ROW_BYTES = 64
"""Bytes of a row beside those of its entries, about."""

LARGE_BYTES = 16_384
"""Bytes of inputs from which on an entry goes straight into the log: to write them twice would cost more."""

TAIL_ENTRIES = 512
"""Entries of one tape from which on they are folded, however small the journal is."""

FOLD_ENTRIES = 512
"""Entries to fold at once, about, beside as many as came with the last commit: this takes 1 to 5 ms."""

DELETE_BYTES = 2**19
"""Bytes of the journal to delete at once, about."""

TAPE_ENTRIES = 4
"""The cost of folding one more tape, counted in entries."""


class JournalTable:
    """The table `journal`, and the tails of tapes. Its methods are part of the caller's transaction.

    After the transaction, the caller calls `committed` or `rolled_back`.
    """

    def __init__(self, database: Connection, path: Path) -> None:
        self._database = database
        self._path = path
        self.problems: list[str] = []
        """The damage that was found."""
        self._tails: dict[int, Tail] = {}
        """By the number of the tape, in the order of their `first`."""
        self._long: set[int] = set()
        """Tapes with at least TAIL_ENTRIES in their tails."""
        self._sizes: deque[int] = deque()
        """Bytes of the rows in the table; their numbers follow one another up to `_last`."""
        self._size = 0
        self._last = 0
        self._latest = 0
        """How many entries came with the last commit."""
        self._lost: set[int] = set()
        """Tapes with steps in damaged rows of the journal."""
        # Of the transaction under way
        self._added: list[tuple[Tail, int | None]] = []
        """The tail of each new entry, and the seq of its tape before."""
        self._added_bytes = 0
        self._folded: dict[int, Tail] = {}
        self._deleted = 0

    @property
    def is_due(self) -> bool:
        """Whether there is enough to fold a part."""
        return self._size > JOURNAL_BYTES or bool(self._long)

    @property
    def is_overdue(self) -> bool:
        """Whether the journal is so large that a part must be folded before more is added."""
        return self._size > OVERDUE_BYTES

    def tail(self, tape: int) -> Tail | None:
        """Return the entries of a tape that are not in the log; None for none."""
        return self._tails.get(tape)

    def tape(self, number: int | None) -> TapeRow | None:
        """Return a tape as it is after all entries, unless there is none or its row is damaged."""
        tail = self._tails.get(number) if number is not None else None
        return self._stored(number) if tail is None else tail.now

    def now(self, row: TapeRow) -> TapeRow:
        """Return a tape as it is after all entries, from its row in the table."""
        tail = self._tails.get(row.number)
        return row if tail is None else tail.now

    def append(self, entries: Sequence[Entry]) -> set[int]:
        """Add entries in one row; return the indices of those that are refused.

        Those are entries whose epoch is over, whose step is not the next, or whose tape is damaged or missing.
        """
        tails, refused = self._tails, set[int]()
        tapes, heads, inputs = list[int](), list[bytes](), list[bytes]()
        large = {entry.tape for entry in entries if len(entry.inputs) >= LARGE_BYTES}
        for index, (tape, epoch, step, steps, data, seq, _) in enumerate(entries):
            tail = tails.get(tape) or self._begin(tape, self._last + 1)
            if tail is None or tail.stop != step or tail.epoch != epoch:
                refused.add(index)
                continue
            tails[tape] = tail
            self._added.append((tail, tail.seq))
            tail.add(steps, seq, data)
            if tape not in large:
                key = ENTRY_KEY.pack(tape, step, steps, -1 if seq is None else seq)
                tapes.append(tape)
                heads += (key, AFTER_KEY.pack(epoch, len(data), entry_checksum(key, data)))
                inputs.append(data)
        self._fold(large)
        if tapes:
            self._write(b"".join(heads), struct.pack(f"<{len(tapes)}q", *tapes), b"".join(inputs))
        return refused

    def fold(self, tape: int) -> None:
        """Move the entries of a tape into the log."""
        self._fold([tape])

    def fold_some(self) -> None:
        """Fold long tails, and those at the start of a large journal; delete rows that are folded."""
        oldest = self._tails if self._size > JOURNAL_BYTES else ()
        enough = FOLD_ENTRIES + (1 + TAPE_ENTRIES) * self._latest
        chosen, entries = [], 0
        for tape in dict.fromkeys([*self._long, *islice(oldest, enough)]):
            if entries >= enough:
                break
            chosen.append(tape)
            entries += self._tails[tape].count + TAPE_ENTRIES
        self._fold(chosen)
        self._delete(DELETE_BYTES)

    def fold_all(self) -> None:
        """Fold every entry, and leave no row.

        Where steps are lost, because the row with them is damaged, the log gets a damaged row in their place.
        """
        self._fold(list(self._tails))
        for tape in self._lost:
            self._mark_lost(tape)
        self._delete(math.inf)

    def load(self) -> None:
        """Read the journal that the last store left, and note what is damaged in it."""
        for number, heads, tapes, inputs, written in self._database.execute(ROWS).fetchall():
            if self._sizes and number != self._last + 1:
                self.note_damage(f"the journal has no row {self._last + 1}, but row {number}")
            self._sizes.append(ROW_BYTES + sum(map(_length, (heads, tapes, inputs))))
            self._size += self._sizes[-1]
            self._last = number
            entries, named = unpacked(number, heads, inputs, written), _numbers(tapes)
            if entries is None:
                self._lost.update(named)
                self.note_damage(f"row {number} of the journal is damaged: steps of tapes {named} are lost")
                continue
            if named != [entry.tape for entry in entries] or not all(entry.is_whole for entry in entries):
                self.note_damage(f"row {number} of the journal is damaged")
            for entry in entries:
                self._add_again(entry)

    def note_damage(self, problem: str) -> None:
        """Note that something is damaged, and log it."""
        self.problems.append(problem)
        logger.error("%s: %s", self._path, problem)

    def committed(self) -> None:
        """Note in memory that the transaction was committed."""
        self._latest = len(self._added) or self._latest
        self._long.update(tail.row.number for tail, _ in self._added if tail.count >= TAIL_ENTRIES)
        self._long.difference_update(self._folded)
        for _ in range(self._deleted):
            self._size -= self._sizes.popleft()
        if not self._sizes:
            self._lost.clear()
        if self._added_bytes:
            self._last += 1
            self._sizes.append(self._added_bytes)
            self._size += self._added_bytes
        self._forget_transaction()

    def rolled_back(self) -> None:
        """Put everything in memory back to where it was before the transaction."""
        if self._added or self._folded:
            tails = self._tails | self._folded
            for tail, seq in reversed(self._added):
                tail.take_back(seq)
            kept = [item for item in tails.items() if item[1].count]
            self._tails = dict(sorted(kept, key=lambda item: item[1].first))
            self._long = {tape for tape, tail in kept if tail.count >= TAIL_ENTRIES}
        self._forget_transaction()

    def _forget_transaction(self) -> None:
        self._added, self._added_bytes, self._folded, self._deleted = [], 0, {}, 0

    def _stored(self, number: int | None) -> TapeRow | None:
        """Return a tape as its table has it, unless there is none or its row is damaged."""
        return whole(TapeRow, self._database.execute("SELECT * FROM tapes WHERE number = ?", (number,)).fetchone())

    def _begin(self, tape: int, first: int) -> Tail | None:
        """Return a tail without entries yet; None where the tape is missing or damaged."""
        row = self._stored(tape)
        return None if row is None else Tail(row, first)

    def _write(self, heads: bytes, tapes: bytes, inputs: bytes) -> None:
        """Write the row of a commit."""
        number = self._last + 1
        self._database.execute(ADD, (number, heads, tapes, inputs, journal_checksum(number, heads)))
        self._added_bytes = ROW_BYTES + len(heads) + len(tapes) + len(inputs)

    def _fold(self, tapes: Collection[int]) -> None:
        """Move the entries of tapes into the log."""
        tails = [self._tails.pop(tape) for tape in tapes if tape in self._tails]
        if not tails:
            return
        for tail in tails:  # of a tape that is folded twice, the first has all that was there before the transaction
            self._folded.setdefault(tail.row.number, tail)
        self._long.difference_update(tapes)
        self._database.executemany(ADD_TO_LOG, chain.from_iterable(tail.rows() for tail in tails))
        self._advance([tail.now for tail in tails])

    def _advance(self, rows: Collection[TapeRow]) -> None:
        """Write tapes of which only `stop` and `seq` have changed."""
        self._database.executemany(ADVANCE, [(row.stop, row.seq, checksum(row), row.number) for row in rows])

    def _delete(self, limit: float) -> None:
        """Delete the first rows, of about `limit` bytes, if all of their entries are folded."""
        first = next((tail.first for tail in self._tails.values()), self._last + 1)
        begin = self._last + 1 - len(self._sizes)
        before = islice(accumulate(self._sizes, initial=0), first - begin)
        self._deleted = sum(1 for _ in takewhile(lambda size: size < limit, before))
        if self._deleted and self._deleted == len(self._sizes):
            self._database.execute("DELETE FROM journal")  # faster: SQLite looks at no row
        elif self._deleted:
            self._database.execute("DELETE FROM journal WHERE number < ?", (begin + self._deleted,))

    def _add_again(self, entry: "Unpacked") -> None:
        """Add an entry from the table to the tail of its tape, unless it was folded before."""
        tail = self._tails.get(entry.tape) or self._begin(entry.tape, self._last)
        if tail is not None and tail.epoch == entry.epoch and entry.step >= tail.stop:
            self._tails[entry.tape] = tail
            tail.skip(entry.step)
            tail.add(entry.steps, entry.seq, entry.inputs, entry.is_whole)

    def _mark_lost(self, tape: int) -> None:
        """Write a damaged row in the log of a tape, in place of steps that are lost."""
        row = self._stored(tape)
        if row is not None:
            self._database.execute(ADD_TO_LOG, (tape, row.stop, 1, b"", b"", NO_CHECKSUM))
            self._advance([row._replace(stop=row.stop + 1)])


class Unpacked(NamedTuple):
    """An entry, as a row of the journal has it."""

    tape: int
    step: int
    steps: int
    seq: int | None
    epoch: int
    inputs: bytes
    is_whole: bool


def unpacked(number: int, heads: Any, inputs: Any, written: Any) -> list[Unpacked] | None:
    """Return the entries of a row of the journal; None where its heads are damaged."""
    try:
        if written != journal_checksum(number, heads):
            return None
    except (struct.error, TypeError):  # not even of the right types
        return None
    inputs = inputs if isinstance(inputs, bytes) else b""
    entries, at = [], 0
    for tape, step, steps, seq, epoch, size, of_entry in HEAD.iter_unpack(heads):
        data = inputs[at : at + size]
        is_whole = entry_checksum(ENTRY_KEY.pack(tape, step, steps, seq), data) == of_entry
        entries.append(Unpacked(tape, step, steps, None if seq == -1 else seq, epoch, data, is_whole))
        at += size
    return entries


def _numbers(tapes: Any) -> list[int]:
    """Return the numbers of tapes in a row of the journal."""
    data = tapes if isinstance(tapes, bytes) else b""
    return [number for (number,) in NUMBER.iter_unpack(data[: len(data) // NUMBER.size * NUMBER.size])]


def _length(value: Any) -> int:
    return len(value) if isinstance(value, bytes) else 0
