"""The snapshots of tapes."""

import logging

from app.stores.base import Retention
from app.stores.sqlite.database import Database
from app.stores.sqlite.rows import TapeRow, is_whole_snapshot, snapshot_checksum

logger = logging.getLogger(__name__)

COLUMNS = "step, taken, passing, state, checksum"


class Snapshots:
    """The table `snapshots`. Its methods are part of the caller's transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def keep(self, tape: TapeRow, step: int, state: bytes, now: float, passing: bool) -> None:
        """Keep a snapshot; one with which a tape begins, or at the step of another, does not pass."""
        number, now = tape.number, float(now)
        self._database.run("DELETE FROM snapshots WHERE tape = ? AND passing AND step != ?", number, tape.first)
        there = self._database.row("SELECT 1 FROM snapshots WHERE tape = ? AND step = ?", number, step)
        passes = int(passing and there is None)
        written = snapshot_checksum(number, step, now, passes, state)
        self._database.run(
            "INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?, ?, ?, ?)", number, step, now, passes, written, state
        )

    def before(self, tape: int, step: int) -> tuple[int, bytes] | None:
        """Return the last snapshot of a tape up to a step that is whole: its step, and the state."""
        rows = self._database.rows(
            f"SELECT {COLUMNS} FROM snapshots WHERE tape = ? AND step <= ? ORDER BY step DESC",  # noqa: S608
            tape,
            step,
        )
        for found, taken, passing, state, written in rows:
            if is_whole_snapshot(tape, found, taken, passing, state, written):
                return found, state
            logger.error("%s: the snapshot of tape %d at step %s is damaged", self._database.path, tape, found)
        return None

    def last_old(self, tape: TapeRow, last: int, retention: Retention, now: float) -> int | None:
        """Return the last step up to `last` with a whole snapshot before which retention asks for nothing."""
        rows = self._database.rows(
            f"SELECT {COLUMNS} FROM snapshots WHERE tape = ? AND step <= ? AND step >= ? "  # noqa: S608
            "AND (step <= ? OR taken <= ?) ORDER BY step DESC",
            *(tape.number, last, max(tape.base, tape.first), last - retention.steps, now - retention.seconds),
        )
        found = next((step for step, *values in rows if is_whole_snapshot(tape.number, step, *values)), None)
        rows.close()
        return found
