"""The log of tapes in PostgreSQL: a row for each entry, in partitions by the time at which it was written.

An append is one statement, committed when it returns. It writes to the log alone. Where a tape ends is therefore not in
the tape's row; a server remembers the ends of the tapes that it appends to, and forgets them after any error.
"""

import functools
import struct
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from app.errors import SessionDamaged
from app.stores.base import Entry, LoggedSteps
from app.stores.postgres.database import Database, Row
from app.stores.postgres.tapes import FENCE, LAST, SEQ, STOP, TapeRow

APPEND = f"""
    WITH {FENCE}
    INSERT INTO log (tape, epoch, step, steps, seq, last_seq, inputs)
    SELECT e.tape, e.epoch, e.step, e.steps, nullif(e.seq, -1), nullif(e.last_seq, -1), e.inputs
    FROM unnest($2::int8[], $3::int8[], $4::int8[], $5::int8[], $6::int8[], $7::int8[], $8::bytea[])
        AS e(tape, epoch, step, steps, seq, last_seq, inputs)
    JOIN tapes AS t ON t.number = e.tape AND t.epoch = e.epoch JOIN fence ON fence.id = t.owner
    RETURNING tape
    """  # noqa: S608
"""Write the entries whose epoch is that of their tape, and whose server was not fenced.

A server is fenced by the deletion of its row, which waits for the transactions that hold it FOR KEY SHARE: when it is
gone, all steps of that server are in the log, and no other can follow.
"""

ENDS = f"""
    SELECT t.number, t.epoch, {STOP}, {SEQ} FROM tapes AS t {LAST}
    WHERE t.number = ANY($1::int8[]) AND t.owner IS NOT NULL
    """  # noqa: S608

LINE = """
    line AS (
        SELECT number, root, parent, base, jump, {stop} AS stop FROM tapes WHERE number = $1
        UNION ALL
        SELECT t.number, t.root, t.parent, t.base, t.jump, least(line.stop, line.base) FROM line
        LEFT JOIN tapes AS far ON far.number = line.jump AND far.base >= {end} AND far.number <> line.number
            AND far.root = line.root
        JOIN tapes AS t ON t.number = coalesce(far.number, line.parent)
        WHERE line.base > {start}
    ),
    part AS (
        SELECT number, stop, CASE WHEN parent IS NULL THEN {start} ELSE greatest({start}, base) END AS start FROM line
    ),
    entry AS (
        SELECT log.step, log.steps, log.inputs, log.seq, part.stop FROM part CROSS JOIN LATERAL (
            SELECT step, steps, inputs, seq FROM log
            WHERE tape = part.number AND step < least(part.stop, {end}) AND step >= coalesce(
                (SELECT max(step) FROM log WHERE tape = part.number AND step <= part.start), part.start)
        ) AS log WHERE part.start < least(part.stop, {end})
    ),
    sized AS (SELECT *, sum(octet_length(inputs)) OVER (ORDER BY step) - octet_length(inputs) AS before FROM entry)
    """
"""The entries of a tape $1, and of those that it begins with: those with the steps after `start` that begin before
`end`. stop: where the tape of an entry ends in the line, at most `stop`. before: bytes of the inputs before an entry.
"""

STEPS = f"""
    WITH RECURSIVE {LINE.format(start="$2::int8", stop="$3::int8", end="$4::int8")}
    SELECT step, steps, inputs, seq, stop FROM sized WHERE before < $5 ORDER BY step
    """  # noqa: S608

BEGINNING = f"""
    WITH RECURSIVE upwards AS (
        SELECT number, root, parent, base, jump, $2::int8 AS stop,
            (SELECT max(step) FROM snapshots WHERE tape = number AND step <= $2) AS at
        FROM tapes WHERE number = $1
        UNION ALL
        SELECT t.number, t.root, t.parent, t.base, t.jump, least(up.stop, up.base),
            CASE WHEN t.base <= $2 OR t.parent IS NULL THEN
            (SELECT max(step) FROM snapshots WHERE tape = t.number AND step <= least(up.stop, up.base)) END
        FROM upwards AS up LEFT JOIN tapes AS far ON far.number = up.jump AND far.base > $2 AND far.number <> up.number
            AND far.root = up.root
        JOIN tapes AS t ON t.number = coalesce(far.number, up.parent)
        WHERE up.at IS NULL
    ),
    found AS (SELECT snapshots.step, snapshots.state FROM upwards JOIN snapshots ON tape = number AND step = at),
    {LINE.format(start="coalesce((SELECT step FROM found), 0)", stop="$2::int8", end="$3::int8")}
    SELECT found.step, NULL, found.state, root.first, NULL
    FROM tapes AS t JOIN tapes AS root ON root.number = t.root LEFT JOIN found ON true WHERE t.number = $1
    UNION ALL (SELECT step, steps, inputs, seq, stop FROM sized WHERE before < $4 ORDER BY step)
    """  # noqa: S608
"""First the last snapshot of a line up to a step, and the first step that is kept; then the entries from there on."""

AT_ONCE = 4096
"""Steps of a line to read at once, about."""

AHEAD_BYTES = 2**18
"""Bytes of inputs to read with the snapshot before them, about."""

FRAME = """
    SELECT step, steps, inputs, seq FROM log WHERE tape = $1 AND seq <= $2 AND step < $3 AND step >= $4
    ORDER BY step DESC LIMIT 1
    """

INT8, BYTEA, TEXT = 20, 17, 25
"""The numbers of PostgreSQL's types."""

TYPES = (1009, *[1016] * 6, 1001)
"""The numbers of the types of the arrays of APPEND."""

ARRAY = struct.Struct(">iiiii")
"""The head of an array on the wire: dimensions, whether it has nulls, the type, how many elements, the first index."""

EMPTY = struct.Struct(">iii")
"""An array without elements."""

LENGTH = struct.Struct(">i")


End = tuple[int, int, int | None]
"""The end of a tape: the epoch of its session, the step after its last, and the number of its last frame."""


class Beginning(NamedTuple):
    """The first step that is kept of a line; the last snapshot up to a step, if any; and the log from there on."""

    oldest: int
    snapshot: tuple[int, bytes] | None
    log: Iterator[LoggedSteps]


REMEMBERED = 100_000
"""Tapes whose ends are remembered, at most."""


def nobody(_: int) -> None:
    """Ignore how many it was."""


class Log:
    """The table `log`. Its methods are part of the caller's transaction, or are one statement."""

    def __init__(self, database: Database, owners: Callable[[], Collection[str]]) -> None:
        self._database = database
        self._owners = owners
        self._ends: dict[int, End] = {}
        self.on_refused: Callable[[int], None] = nobody
        """Called with how many entries of an append were refused because of their epoch, or because of the fence."""

    def remember(self, tape: int, epoch: int, stop: int, seq: int | None) -> None:
        """Remember where a tape ends that this process appends to."""
        self._remember({tape: (epoch, stop, seq)})

    def forget(self, *tapes: int) -> None:
        """Forget where tapes end."""
        for tape in tapes:
            self._ends.pop(tape, None)

    def forget_all(self) -> None:
        """Forget where all tapes end."""
        self._ends.clear()

    def append(self, entries: Sequence[Entry]) -> set[int]:
        """Write entries; return the indices of those that are refused."""
        ends = self._ends
        unknown = {entry.tape for entry in entries if entry.tape not in ends}
        if unknown:
            self._learn(unknown)
        after, chosen, refused, fenced = dict[int, End](), list[int](), set[int](), 0
        rows = list[tuple[int, int, int, int, int, int]]()
        for index, (tape, epoch, step, steps, _, seq, _) in enumerate(entries):
            end = after.get(tape) or ends.get(tape)
            if end is None or end[1] != step or end[0] != epoch:
                refused.add(index)
                fenced += end is not None and end[0] != epoch
                continue
            last = end[2] if seq is None else seq
            rows.append((tape, epoch, step, steps, -1 if seq is None else seq, -1 if last is None else last))
            after[tape] = epoch, step + steps, last
            chosen.append(index)
        if chosen:
            late = self._insert(rows, [entries[index].inputs for index in chosen])
            refused.update(index for index in chosen if entries[index].tape in late)
            fenced += len(late)
            self.forget(*late)
            self._remember({tape: end for tape, end in after.items() if tape not in late} if late else after)
        if fenced:
            self.on_refused(fenced)
        return refused

    def steps(self, tape: int, start: int, stop: int) -> Iterator[LoggedSteps]:
        """Yield the log of a line from the step `start` up to `stop`. Raises SessionDamaged where a step is missing."""
        while start < stop:
            rows = self._database.rows(STEPS, tape, start, stop, min(stop, start + AT_ONCE), AHEAD_BYTES)
            if not rows:
                raise self._damaged(tape, start)
            for steps in self._pieces(tape, rows, start):
                yield steps
                start = steps.step + steps.steps

    def beginning(self, tape: int, step: int) -> Beginning | None:
        """Return the last snapshot of a line up to a step, and the log from there; None where there is no tape."""
        rows = self._database.rows(BEGINNING, tape, step, step, AHEAD_BYTES)
        if not rows:
            return None
        at, _, state, oldest, _ = rows[0]
        pieces = self._pieces(tape, rows[1:], at or 0)
        return Beginning(oldest, None if at is None else (at, state), pieces)

    def _pieces(self, tape: int, rows: Sequence[Row], start: int) -> Iterator[LoggedSteps]:
        """Yield rows of the log, each without the steps that its line does not have. Raises SessionDamaged at a gap."""
        for step, steps, inputs, seq, stop in rows:
            first, last, width = max(step, start), min(step + steps, stop), len(inputs) // steps
            if not step <= start < last:
                raise self._damaged(tape, start)
            yield LoggedSteps(first, last - first, inputs[(first - step) * width : (last - step) * width], seq)
            start = last

    def frame(self, tape: TapeRow, seq: int, oldest: int) -> LoggedSteps | None:
        """Return the steps of the last frame of a tape with a number, unless one with a lower number follows it."""
        found = self._database.row(FRAME, tape.number, seq, tape.stop, oldest)
        return None if found is None or found[3] != seq else LoggedSteps(*found)

    def _remember(self, ends: Mapping[int, End]) -> None:
        self._ends.update(ends)
        while len(self._ends) > REMEMBERED:
            del self._ends[next(iter(self._ends))]

    def _learn(self, tapes: Collection[int]) -> None:
        """Read where tapes end."""
        self._remember({tape: (epoch, *end) for tape, epoch, *end in self._database.rows(ENDS, list(tapes))})

    def _insert(self, rows: Sequence[tuple[int, ...]], inputs: Sequence[bytes]) -> set[int]:
        """Write rows; return the tapes of those that were refused."""
        values = [_array(TEXT, [owner.encode() for owner in self._owners()])]
        values += map(_numbers, zip(*rows, strict=True))
        values.append(_array(BYTEA, inputs))
        result = self._database.run_binary(APPEND, TYPES, values)
        if result.ntuples == len(rows):
            return set()
        written = {result.get_value(row, 0) for row in range(result.ntuples)}
        return {tape for tape, *_ in rows if tape.to_bytes(8, "big") not in written}

    def _damaged(self, tape: int, step: int) -> SessionDamaged:
        return SessionDamaged(f"{self._database.name}: the log of tape {tape} is damaged at step {step}")


@functools.lru_cache
def _packing(count: int) -> struct.Struct:
    """Return the packing of elements of int8, each behind its length."""
    return struct.Struct(f">{'iq' * count}")


def _numbers(values: Sequence[int]) -> bytes:
    """Return an array of int8 as PostgreSQL takes it."""
    count = len(values)
    words = [8] * (2 * count)
    words[1::2] = values
    return ARRAY.pack(1, 0, INT8, count, 1) + _packing(count).pack(*words)


def _array(kind: int, values: Sequence[bytes]) -> bytes:
    """Return an array of bytes or text as PostgreSQL takes it."""
    if not values:
        return EMPTY.pack(0, 0, kind)
    parts = [b""] * (2 * len(values))
    parts[::2] = [LENGTH.pack(len(value)) for value in values]
    parts[1::2] = values
    return ARRAY.pack(1, 0, kind, len(values), 1) + b"".join(parts)
