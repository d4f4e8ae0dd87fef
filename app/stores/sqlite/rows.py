"""The rows of the embedded store's tables. Each has a checksum, in the column of that name, over all its other columns.

A row whose checksum does not fit is damaged: it is never used, and never changed, so that it cannot come to look whole.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from app.stores.base import EndReason


class SessionRow(NamedTuple):
    """A session: `tape` is None once it has ended."""

    id: str
    model: str
    fingerprint: str
    memory_size: int | None
    force: str | None
    opened: float
    used: float
    ended: float | None
    reason: EndReason | None
    creation_key: str | None
    creation_digest: bytes | None
    owner: str
    tape: int | None
    unlogged: int


class TapeRow(NamedTuple):
    """A tape, and where the session on it is.

    parent: the tape with which it begins, up to the step `base`; None for a root. root: the last tape of its line, the
    tape, its parent, the parent's parent, and so on. jump: another tape of the line, by which a search in it passes
    over many; of a root, itself. depth: of tapes since its root, when it was begun.
    first: of a root, the first step, but for 0, that can be gone back to. stop: the step after its last. head: the step
    that its session was rewound to, None where it is at the end.
    """

    number: int
    root: int
    parent: int | None
    base: int
    jump: int
    depth: int
    first: int
    stop: int
    head: int | None
    seq: int | None
    epoch: int


class ClockRow(NamedTuple):
    """The one row of the table `clock`: the latest time that was recorded, in seconds of the server's clock."""

    number: int
    time: float


Row = SessionRow | TapeRow | ClockRow

R = TypeVar("R", SessionRow, TapeRow, ClockRow)


class LogRow(NamedTuple):
    """Entries of a tape that follow one another, with `steps` steps after the step `step`.

    entries: of each entry ENTRY. inputs: of all entries, one behind the other.
    """

    tape: int
    step: int
    steps: int
    entries: bytes
    inputs: bytes
    checksum: int


ENTRY = struct.Struct("<IqI")
"""The numbers of an entry in a row of the log: its steps, its seq (-1 for none), and the bytes of its inputs."""

LOG_KEY = struct.Struct("<qqq")
"""The key of a row of the log: tape, step, steps."""

ENTRY_KEY = struct.Struct("<qqqq")
"""The key of an entry in the journal: tape, step, steps, and seq, which is -1 for none."""


def insert_into(table: str, kind: type[Row]) -> str:
    """Return the statement that writes a new row, whose values are its own and its checksum."""
    return f"INSERT INTO {table} VALUES ({', '.join('?' * (len(kind._fields) + 1))})"  # noqa: S608


def update_of(table: str, kind: type[Row]) -> str:
    """Return the statement that writes a row again, whose values are all but its key, its checksum, and its key."""
    key, *others = kind._fields
    return f"UPDATE {table} SET {', '.join(f'{name} = ?' for name in others)}, checksum = ? WHERE {key} = ?"  # noqa: S608


def checksum(row: Sequence[Any]) -> int:
    """Return the checksum of a row of `sessions`, `tapes` or `clock`, whatever the types of its values."""
    return zlib.crc32(ascii(tuple(row)).encode())


def whole(kind: type[R], values: Sequence[Any] | None) -> R | None:
    """Return a row that was read with its checksum behind it; None where there is none, or it is damaged."""
    if values is None:
        return None
    row = values[:-1]
    return kind._make(row) if values[-1] == checksum(row) else None


def log_checksum(tape: int, step: int, steps: int, entries: bytes, inputs: bytes) -> int:
    """Return the checksum of a row of the log."""
    return zlib.crc32(inputs, zlib.crc32(entries, zlib.crc32(LOG_KEY.pack(tape, step, steps))))


def entry_checksum(key: bytes, inputs: bytes) -> int:
    """Return the checksum of an entry in the journal. key: its ENTRY_KEY."""
    return zlib.crc32(inputs, zlib.crc32(key))


def journal_checksum(number: int, heads: bytes) -> int:
    """Return the checksum of a row of the journal: of all but its inputs: each entry has its own."""
    return zlib.crc32(heads, zlib.crc32(struct.pack("<q", number)))


def snapshot_checksum(tape: int, step: int, taken: float, passing: int, state: bytes) -> int:
    """Return the checksum of a row of `snapshots`."""
    return extended(zlib.crc32(state, zlib.crc32(struct.pack("<qq", tape, step))), taken, passing)


def extended(state_checksum: int, taken: float, passing: int) -> int:
    """Return the checksum of a snapshot from that of all but these columns."""
    return zlib.crc32(ascii((taken, passing)).encode(), state_checksum)


def is_whole_log(tape: int, step: Any, steps: Any, entries: Any, inputs: Any, found: Any) -> bool:
    """Return whether a row of the log is as it was written, and its entries have all of its steps and inputs."""
    try:
        if found != log_checksum(tape, step, steps, entries, inputs):
            return False
        counts, _, sizes = zip(*ENTRY.iter_unpack(entries), strict=True)
    except (struct.error, TypeError, ValueError):  # not even of the right types
        return False
    return (
        all(count > 0 and size % count == 0 for count, size in zip(counts, sizes, strict=True))
        and sum(counts) == steps
        and sum(sizes) == len(inputs)
    )


def entries_of(row: LogRow) -> Iterator[tuple[int, int, int | None, bytes]]:
    """Yield the entries of a row that is whole: the step before each, its steps, its seq, its inputs."""
    at, begin = row.step, 0
    for steps, seq, size in ENTRY.iter_unpack(row.entries):
        yield at, steps, None if seq == -1 else seq, row.inputs[begin : begin + size]
        at, begin = at + steps, begin + size


def is_whole_snapshot(tape: int, step: Any, taken: Any, passing: Any, state: Any, found: Any) -> bool:
    """Return whether a row of `snapshots` is as it was written."""
    try:
        return bool(found == snapshot_checksum(tape, step, taken, passing, state))
    except (struct.error, TypeError):
        return False
