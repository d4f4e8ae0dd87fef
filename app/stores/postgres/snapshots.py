"""The snapshots of tapes in PostgreSQL."""

from collections.abc import Callable, Collection

from app.stores.base import Retention
from app.stores.postgres.database import Database
from app.stores.postgres.tapes import FENCE, LAST, SEQ, STOP, TapeRow, moved

KEEP = f"""
    WITH {FENCE},
    found AS (
        SELECT t.number, t.first, {STOP} AS stop, {SEQ} AS seq, root.first AS oldest,
            t.owner IS NULL OR t.owner IN (SELECT id FROM fence) AS is_own
        FROM tapes AS t JOIN tapes AS root ON root.number = t.root {LAST} WHERE t.number = $2
    ),
    passed AS (
        DELETE FROM snapshots USING found
        WHERE is_own AND tape = found.number AND passing AND step <> found.first AND step <> $3
    ),
    kept AS (
        INSERT INTO snapshots AS old (tape, step, taken, passing, state)
        SELECT number, $3, $4, $5, $6 FROM found WHERE is_own
        ON CONFLICT (tape, step) DO UPDATE SET taken = $4, state = $6,
            passing = $5 AND old.passing AND old.step <> (SELECT first FROM found)
    ),
    noted AS (
        UPDATE tapes SET stop = found.stop, seq = found.seq FROM found
        WHERE is_own AND tapes.number = found.number AND tapes.stop <> found.stop
    )
    SELECT is_own, oldest FROM found
    """  # noqa: S608
"""Keep a snapshot; one with which a tape begins, or at the step of another, does not pass."""

LAST_OLD = """
    SELECT max(step) FROM snapshots
    WHERE tape = $1 AND step <= $2 AND step >= $3 AND (step <= $4 OR taken <= $5)
    """


class Snapshots:
    """The table `snapshots`. Its methods are part of the caller's transaction, or are one statement."""

    def __init__(self, database: Database, owners: Callable[[], Collection[str]]) -> None:
        self._database = database
        self._owners = owners

    def keep(self, tape: int, step: int, state: bytes, now: float, passing: bool) -> int | None:
        """Keep a snapshot; return the first step that can be gone back to, None where there is no tape.

        Raises SessionMoved.
        """
        found = self._database.row(KEEP, list(self._owners()), tape, step, float(now), passing, state)
        if found is None:
            return None
        is_own, oldest = found
        if not is_own:
            raise moved()
        return int(oldest)

    def last_old(self, tape: TapeRow, last: int, retention: Retention, now: float) -> int | None:
        """Return the last step up to `last` with a snapshot before which retention asks for nothing."""
        limits = (last, max(tape.base, tape.first), last - retention.steps, now - retention.seconds)
        (step,) = self._database.row(LAST_OLD, tape.number, *limits)
        return None if step is None else int(step)
