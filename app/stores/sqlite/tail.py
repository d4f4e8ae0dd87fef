"""The last entries of a tape, which are in the journal and not in the log yet, packed as rows of the log."""

from bisect import bisect_right

from app.stores.sqlite.rows import ENTRY, LogRow, TapeRow, log_checksum

ROW_BYTES = 2**15
"""Bytes of inputs in a row of the log, at most, unless it has one entry only: to read a step is to read its row."""

NO_CHECKSUM = -1
"""Checksum of a row of the log in place of steps that are lost or damaged."""


class Packed:
    """A row of the log to which entries are added. entries: as in `LogRow`. stop: the step after its last."""

    __slots__ = ("entries", "inputs", "is_whole", "step", "stop")

    def __init__(self, step: int, is_whole: bool) -> None:
        self.step = self.stop = step
        self.entries, self.inputs = bytearray(), bytearray()
        self.is_whole = is_whole

    def takes(self, step: int, size: int) -> bool:
        """Return whether an entry at a step, with `size` bytes of inputs, may be added."""
        return self.is_whole and self.stop == step and len(self.inputs) + size <= ROW_BYTES

    def add(self, steps: int, seq: int | None, inputs: bytes) -> None:
        """Add an entry behind the others."""
        self.entries += ENTRY.pack(steps, -1 if seq is None else seq, len(inputs))
        self.inputs += inputs
        self.stop += steps

    def take_back(self) -> None:
        """Remove the last entry."""
        steps, _, size = ENTRY.unpack(self.entries[-ENTRY.size :])
        self.stop -= steps
        del self.entries[-ENTRY.size :], self.inputs[len(self.inputs) - size :]

    def row(self, tape: int) -> LogRow:
        """Return the row as it is now."""
        entries, inputs, steps = bytes(self.entries), bytes(self.inputs), self.stop - self.step
        written = log_checksum(tape, self.step, steps, entries, inputs) if self.is_whole else NO_CHECKSUM
        return LogRow(tape, self.step, steps, entries, inputs, written)


class Tail:
    """The last entries of a tape.

    row: the tape in its table, before them. stop, seq: of the tape after them. count: how many there are.
    first: the number of the journal's row with the first of them.
    """

    __slots__ = ("_packs", "count", "epoch", "first", "row", "seq", "stop")

    def __init__(self, row: TapeRow, first: int) -> None:
        self.row, self.first = row, first
        self.epoch, self.stop, self.seq = row.epoch, row.stop, row.seq
        self.count = 0
        self._packs: list[Packed] = []

    @property
    def now(self) -> TapeRow:
        """The tape after these entries."""
        return self.row._replace(stop=self.stop, seq=self.seq)

    def add(self, steps: int, seq: int | None, inputs: bytes, is_whole: bool = True) -> None:
        """Add an entry behind the others; one that is damaged has a damaged row of its own."""
        pack = self._packs[-1] if self._packs else None
        if pack is None or not is_whole or not pack.takes(self.stop, len(inputs)):
            pack = Packed(self.stop, is_whole)
            self._packs.append(pack)
        pack.add(steps, seq, inputs)
        self.count += 1
        self.stop = pack.stop
        if seq is not None:
            self.seq = seq

    def skip(self, step: int) -> None:
        """Go on at a later step: the entries before it are missing."""
        self.stop = step

    def take_back(self, seq: int | None) -> None:
        """Remove the last entry; seq: of the tape before it."""
        last = self._packs[-1]
        last.take_back()
        if not last.entries:
            self._packs.pop()
        self.count -= 1
        self.stop, self.seq = last.stop, seq

    def rows(self) -> list[LogRow]:
        """Return the entries as rows of the log."""
        return [pack.row(self.row.number) for pack in self._packs]

    def span(self, start: int, stop: int) -> list[LogRow]:
        """Return the rows with the steps after `start`, up to `stop`."""
        first = bisect_right(self._packs, start, key=_step) - 1
        last = bisect_right(self._packs, stop - 1, key=_step)
        return [pack.row(self.row.number) for pack in self._packs[max(0, first) : last]]


def _step(pack: Packed) -> int:
    return pack.step
