"""The sessions of the embedded store: their rows, and the records that are made of these."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any, cast

from app.errors import SessionDamaged, StoreFailed
from app.stores.base import EndReason, Record
from app.stores.sqlite.database import Database
from app.stores.sqlite.journal import JournalTable
from app.stores.sqlite.rows import ClockRow, SessionRow, TapeRow, checksum, insert_into, update_of, whole
from app.stores.sqlite.tapes import Tapes

logger = logging.getLogger(__name__)

INSERT = insert_into("sessions", SessionRow)
UPDATE = update_of("sessions", SessionRow)

RECORD = """
SELECT sessions.*, tapes.*, roots.*, (SELECT max(step) FROM snapshots WHERE tape = tapes.number AND NOT passing)
FROM sessions LEFT JOIN tapes ON tapes.number = sessions.tape LEFT JOIN tapes AS roots ON roots.number = tapes.root
"""
"""A session, its tape, that tape's root, and the step of its last snapshot that is not passing."""

SESSION_END = len(SessionRow._fields) + 1
TAPE_END = SESSION_END + len(TapeRow._fields) + 1


class SessionTable:
    """The table `sessions`. Its methods are part of the caller's transaction."""

    def __init__(self, database: Database, journal: JournalTable, tapes: Tapes) -> None:
        self._database = database
        self._journal = journal
        self._tapes = tapes
        self._logged: set[str] = set()
        """The lines that were written in the log."""

    def insert(self, row: SessionRow) -> None:
        """Write a new session."""
        self._database.run(INSERT, *row, checksum(row))

    def update(self, row: SessionRow) -> None:
        """Write a session that was read and changed."""
        self._database.run(UPDATE, *row[1:], checksum(row), row.id)

    def release_key(self, key: str) -> None:
        """Take a key from the session that had it, if that has ended. Raises SessionDamaged."""
        row = self.with_value("creation_key", key)
        if row is not None and row.ended is not None:
            self.update(row._replace(creation_key=None, creation_digest=None))

    def touch(self, session: str, moment: float) -> None:
        """Write when a session was last used, unless its row is damaged or missing."""
        row = whole(SessionRow, self._database.row("SELECT * FROM sessions WHERE id = ?", session))
        if row is not None:
            row = row._replace(used=float(moment))
            self._database.run(
                "UPDATE sessions SET used = ?, checksum = ? WHERE id = ?", row.used, checksum(row), row.id
            )

    def record_time(self, now: float) -> None:
        """Write the time, in seconds of the server's clock."""
        row = ClockRow(1, float(now))
        self._database.run("INSERT OR REPLACE INTO clock VALUES (?, ?, ?)", *row, checksum(row))

    def recorded_time(self) -> float:
        """Return the time that was written last; 0 where there is none, or its row is damaged."""
        row = whole(ClockRow, self._database.row("SELECT * FROM clock WHERE number = 1"))
        return 0.0 if row is None else row.time

    def with_value(self, column: str, value: str) -> SessionRow | None:
        """Return the session whose id or key this is. Raises SessionDamaged."""
        values = self._database.row(f"SELECT * FROM sessions WHERE {column} = ?", value)  # noqa: S608
        row = whole(SessionRow, values)
        if row is None and values is not None:
            raise self._damaged(values[0])
        return row

    def on_tape(self, tape: int) -> SessionRow | None:
        """Return the session on a tape, unless there is none or its row is damaged."""
        return whole(SessionRow, self._database.row("SELECT * FROM sessions WHERE tape = ?", tape))

    def opened(self, session: str) -> tuple[SessionRow, TapeRow]:
        """Return the rows of an open session and of its tape. Raises SessionDamaged, StoreFailed."""
        row = self.with_value("id", session)
        if row is None or row.tape is None:
            raise StoreFailed(f"{self._database.path}: session {session} is not open")
        return row, self._tapes.get(row.tape)

    def whole_rows(self, condition: str, *values: Any) -> Iterator[SessionRow]:
        """Yield the sessions that a condition chooses, but for those whose row is damaged."""
        for found in self._database.rows(f"SELECT * FROM sessions WHERE {condition}", *values):  # noqa: S608
            row = whole(SessionRow, found)
            if row is not None:
                yield row

    def find(self, session: str) -> Record | EndReason | None:
        """Return an open session, or why it ended; None for one that never was. Raises SessionDamaged."""
        row = self._database.row(f"{RECORD} WHERE id = ?", session)
        return self._record(row) if row else None

    def records(self, condition: str, *values: Any) -> Iterator[Record]:
        """Yield the open sessions that a condition chooses; write a line in the log for each that is damaged."""
        for row in self._database.rows(f"{RECORD} WHERE ended IS NULL {condition}", *values):
            try:
                yield cast(Record, self._record(row))
            except SessionDamaged as error:
                self._log_once(str(error))

    def _record(self, row: Sequence[Any]) -> Record | EndReason:
        """Return the session of a row of RECORD. Raises SessionDamaged."""
        session = whole(SessionRow, row[:SESSION_END])
        if session is None:
            raise self._damaged(row[0])
        if session.ended is not None:
            return cast(EndReason, session.reason)
        tape, root = whole(TapeRow, row[SESSION_END:TAPE_END]), whole(TapeRow, row[TAPE_END:-1])
        if tape is None or root is None:
            raise self._tapes.damaged(session.tape)
        tape, kept = self._journal.now(tape), row[-1]
        return Record(
            id=session.id,
            model=session.model,
            fingerprint=session.fingerprint,
            memory_size=session.memory_size,
            opened=session.opened,
            used=session.used,
            tape=tape.number,
            epoch=tape.epoch,
            step=tape.stop if tape.head is None else tape.head,
            latest=tape.stop,
            oldest=root.first,
            kept=tape.base if kept is None else kept,
            seq=tape.seq,
            next_tape=None if tape.head is None else self._tapes.new_number(),
            volatile=bool(session.unlogged),
            force=session.force,
        )

    def _damaged(self, session: str) -> SessionDamaged:
        return SessionDamaged(
            f"{self._database.path}: the row of session {session} is damaged; engram check lists what is damaged"
        )

    def _log_once(self, message: str) -> None:
        """Write a line in the server's log, unless it is there."""
        if message not in self._logged:
            self._logged.add(message)
            logger.error("%s", message)
