"""The tapes of the store in PostgreSQL: who may change them, which begins with which, and which one has a step.

    root      |----------------------|                      a line: a tape, its parent, ..., its root
    parent          base '-------------|
    tape                     base '--------->               bases grow along a line: a tape's parent has the last step
                                                            up to its base

Lines may be thousands of tapes long. A search along one is a single statement, which takes jumps: each tape knows its
parent and one tape further up, as in the embedded store (`app/stores/sqlite/tapes.py`). A jump may be to a tape beyond
the root, where the line was cut since: such a jump is not taken.

All tapes of one root are a family. A transaction that changes where tapes begin or end holds the family's lock.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from app.errors import SessionDamaged, SessionMoved
from app.stores.postgres.database import Database

LAST = """
    LEFT JOIN LATERAL (
        SELECT step + steps AS stop, last_seq AS seq FROM log
        WHERE log.tape = t.number AND log.step >= t.stop ORDER BY log.step DESC LIMIT 1
    ) AS last ON t.owner IS NOT NULL
    """
"""The last entry of the tape `t` that its row does not know: `append` writes to the log alone."""

STOP = "coalesce(last.stop, t.stop)"
SEQ = "CASE WHEN last.stop IS NULL THEN t.seq ELSE last.seq END"
"""The end of the tape `t`, and its last frame, with those entries."""

FENCE = "fence AS (SELECT id FROM servers WHERE id = ANY($1::text[]) FOR KEY SHARE)"
"""The rows of a process's own servers, which nobody can delete until the transaction ends."""

ROW = f"""
    SELECT t.number, t.root, t.parent, t.base, t.jump, t.depth, t.first, {STOP}, t.head, {SEQ}, t.epoch, t.owner
    FROM tapes AS t {LAST} WHERE t.number = $1
    """  # noqa: S608

LOCK = f"""
    WITH {FENCE}
    SELECT t.root, pg_advisory_xact_lock(t.root)::text, ARRAY(SELECT id FROM fence) FROM tapes AS t WHERE t.number = $2
    """  # noqa: S608

LOCK_FAMILIES = """
    SELECT pg_advisory_xact_lock(root)::text
    FROM (SELECT DISTINCT root FROM tapes WHERE number = ANY($1::int8[]) ORDER BY root) AS families
    """

HOLDER = """
    WITH RECURSIVE line AS (
        SELECT t.number, t.root, t.parent, t.base, t.jump, 0 AS reads FROM tapes AS t WHERE t.number = $1
        UNION ALL
        SELECT t.number, t.root, t.parent, t.base, t.jump, reads + 1
        FROM line LEFT JOIN tapes AS far ON far.number = line.jump AND far.base >= $2 AND far.number <> line.number
            AND far.root = line.root
        JOIN tapes AS t ON t.number = coalesce(far.number, line.parent)
        WHERE line.base >= $2
    )
    SELECT t.number, t.root, t.depth, CASE WHEN t.depth - near.depth = near.depth - far.depth THEN far.number
        ELSE t.number END
    FROM (SELECT number FROM line ORDER BY reads DESC LIMIT 1) AS found JOIN tapes AS t USING (number)
    LEFT JOIN tapes AS near ON near.number = t.jump LEFT JOIN tapes AS far ON far.number = near.jump
    """
"""The tape of a line that has a step, counted from 1, or the root for an older one; and which tape one jumps to that
begins with it: jumps go over 1, 3, 7, 15, ... tapes, as the digits of the depth in a skew binary system say.
"""

INSERT = """
    INSERT INTO tapes (number, root, parent, base, jump, depth, first, stop, seq, epoch, owner)
    VALUES ($1, coalesce($2, $1), $3, $4, coalesce($5, $1), $6, $7, $4, $8, $9, $10)
    """

CUT = """
    WITH deleted AS (DELETE FROM snapshots WHERE tape = $1 AND step < $2)
    UPDATE tapes SET root = number, parent = NULL, jump = number, first = $2 WHERE number = $1
    """

MOVE_DESCENDANTS = """
    WITH RECURSIVE descendants(number) AS (
        SELECT number FROM tapes WHERE parent = $1
        UNION
        SELECT tapes.number FROM tapes JOIN descendants ON parent = descendants.number
    )
    UPDATE tapes SET root = $1 FROM descendants WHERE tapes.number = descendants.number
    """

COLLECT = """
    WITH t AS (
        SELECT number, parent, (SELECT max(base) FROM tapes AS child WHERE child.parent = t.number) AS last
        FROM tapes AS t WHERE number = $1 AND owner IS NULL
    ),
    past AS (DELETE FROM snapshots USING t WHERE tape = t.number AND step > coalesce(t.last, -1)),
    shorter AS (
        UPDATE tapes SET stop = least(stop, t.last), head = NULL, epoch = epoch + 1 FROM t
        WHERE tapes.number = t.number AND t.last IS NOT NULL
    ),
    gone AS (DELETE FROM tapes USING t WHERE tapes.number = t.number AND t.last IS NULL)
    SELECT CASE WHEN last IS NULL THEN parent END FROM t
    """
"""Delete what no session can reach of a tape that no session is on; the parent, where the tape is deleted."""

SHARED = """
    SELECT least((SELECT min(base) FROM tapes WHERE parent = $1),
        (SELECT min(head) FROM tapes WHERE root = $2 AND head IS NOT NULL))
    """


class TapeRow(NamedTuple):
    """A tape, and where the session on it is.

    parent: the tape with which it begins, up to the step `base`; None for a root. root: the last tape of its line.
    jump: another tape of the line; of a root, itself. depth: of tapes since its root, when it was begun. first: of a
    root, the first step, but for 0, that can be gone back to. stop: the step after its last, and seq: of the last
    frame, as they are now. head: the step that its session was rewound to, None where it is at the end. owner: of the
    session on it, NOBODY for a free one, None where no session is on it.
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
    owner: str | None


class Locked(NamedTuple):
    """A tape whose family is locked. is_own: whether this process has the session on it, and was not fenced."""

    row: TapeRow
    is_own: bool


class Holder(NamedTuple):
    """The tape with which a new one begins; jump: of the new one."""

    number: int
    root: int
    depth: int
    jump: int


class Tapes:
    """The table `tapes`. Its methods are part of the caller's transaction."""

    def __init__(self, database: Database, owners: Callable[[], Collection[str]]) -> None:
        self._database = database
        self._owners = owners

    def lock(self, number: int) -> Locked | None:
        """Lock the family of a tape, and this process's servers against being fenced; None where there is no tape."""
        locked: set[int] = set()
        while True:
            found = self._database.row(LOCK, list(self._owners()), number)
            row = self.row(number) if found is not None else None
            if row is None:
                return None
            locked.add(found[0])
            if row.root in locked:  # it was not cut off from its family meanwhile
                return Locked(row, row.owner in found[2])

    def lock_families(self, numbers: Sequence[int]) -> None:
        """Lock the families of tapes, in an order that is the same for all: no two servers wait for each other."""
        self._database.row(LOCK_FAMILIES, numbers)

    def lock_own(self, number: int) -> TapeRow | None:
        """Lock a tape as `lock` does. Raises SessionMoved where another has the session on it."""
        locked = self.lock(number)
        if locked is not None and not locked.is_own and locked.row.owner is not None:
            raise moved()
        return locked.row if locked is not None else None

    def row(self, number: int) -> TapeRow | None:
        """Return a tape as it is now, None where there is none."""
        found = self._database.row(ROW, number)
        return None if found is None else TapeRow._make(found)

    def new_number(self) -> int:
        """Return a number that no tape has had."""
        (number,) = self._database.row("SELECT nextval('tape_numbers')")
        return int(number)

    def begin(
        self,
        number: int,
        parent: TapeRow | None,
        base: int,
        *,
        first: int = 0,
        seq: int | None = None,
        epoch: int = 1,
        owner: str | None,
    ) -> None:
        """Write a new tape that begins with another up to the step `base`; first: the first step kept of a new root.

        It begins with that tape of the line that has the last step up to `base`: no tape is kept only because it leads
        to another.
        """
        holder = self.holder(parent, base)
        if holder is None:
            line: tuple[Any, ...] = (None, None, base, None, 0, first)
        else:
            line = (holder.root, holder.number, base, holder.jump, holder.depth + 1, 0)
        self._database.run(INSERT, number, *line, seq, epoch, owner)

    def holder(self, parent: TapeRow | None, base: int) -> Holder | None:
        """Return the tape of a line with which another is to begin; None for one that begins before the first step."""
        if parent is None or not base:
            return None
        found = self._database.row(HOLDER, parent.number, base)
        if found is None:
            raise self.damaged(parent.number)
        return Holder._make(found)

    def oldest(self, row: TapeRow) -> int:
        """Return the first step, but for 0, that can be gone back to. Raises SessionDamaged."""
        if row.root == row.number:
            return row.first
        found = self._database.row("SELECT first FROM tapes WHERE number = $1", row.root)
        if found is None:
            raise self.damaged(row.root)
        return int(found[0])

    def move(self, row: TapeRow, step: int, seq: int | None) -> None:
        """Put the session on a tape at a step of it."""
        head = None if step == row.stop else step
        self._database.run(
            "UPDATE tapes SET head = $2, seq = $3, stop = $4 WHERE number = $1", row.number, head, seq, row.stop
        )

    def leave(self, row: TapeRow) -> None:
        """Note that a session left a tape, and delete what nobody can reach any more."""
        self._database.run(
            "UPDATE tapes SET head = NULL, owner = NULL, stop = $2, seq = $3 WHERE number = $1",
            *(row.number, row.stop, row.seq),
        )
        self.collect(row.number)

    def shared(self, row: TapeRow) -> int | None:
        """Return the first step of a tape that others share: where another begins, or a session is. None for none.

        A session that was rewound counts wherever it is in the family.
        """
        (step,) = self._database.row(SHARED, row.number, row.root)
        return None if step is None else int(step)

    def cut(self, row: TapeRow, step: int) -> None:
        """Let a tape begin at `step`, where it has a snapshot, as a root. Rows of its log before that stay unread."""
        self._database.run(CUT, row.number, step)
        if row.parent is not None:
            self._database.run(MOVE_DESCENDANTS, row.number)
            self.collect(row.parent)

    def collect(self, number: int | None) -> None:
        """Delete what no session can reach any more of a tape, and of those that it began with.

        Rows of the log stay until their partition is dropped: nobody reads them.
        """
        while number is not None:
            found = self._database.row(COLLECT, number)
            number = found[0] if found is not None else None

    def damaged(self, number: int) -> SessionDamaged:
        """Return the error for a tape that is missing."""
        return SessionDamaged(f"{self._database.name}: tape {number} is missing; engram check lists what is damaged")


def moved() -> SessionMoved:
    """Return the error for a change by a process that does not have the session any more."""
    return SessionMoved("another server has claimed this session, or this one was fenced: ask again")
