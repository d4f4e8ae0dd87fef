"""The sessions of the store in PostgreSQL: their rows, those of their tapes, and the records that are made of both."""

from collections.abc import Callable, Collection
from typing import NamedTuple, cast

from app.errors import SessionDamaged, StoreFailed
from app.stores.base import NOBODY, EndReason, Held, NewSession, Record
from app.stores.postgres.database import Database, Row, state
from app.stores.postgres.tapes import FENCE, LAST, SEQ, STOP, Holder, TapeRow, moved
from app.tenants import tenant_of

RECORD = f"""
    SELECT s.id, s.model, s.fingerprint, s.memory_size, s.opened, s.used, t.number, t.epoch,
        coalesce(t.head, {STOP}) AS step, {STOP} AS stop, root.first, coalesce(
            (SELECT max(step) FROM snapshots WHERE tape = t.number AND NOT passing), t.base), {SEQ} AS seq,
        CASE WHEN t.head IS NOT NULL THEN nextval('tape_numbers') END, s.volatile, s.force,
        s.reason, t.owner, server.name AS server, server.renewed + server.lasts < now() AS is_dead
    """  # noqa: S608
"""A record's values, then those of OwnerRow."""

JOINS = f"""
    LEFT JOIN tapes AS t ON t.number = s.tape LEFT JOIN tapes AS root ON root.number = t.root
    LEFT JOIN servers AS server ON server.id = t.owner {LAST}
    """

FIND = f"{RECORD} FROM sessions AS s {JOINS} WHERE s.id = $1"

CLAIM = f"""
    WITH found AS ({FIND}),
    claimed AS (
        UPDATE tapes SET owner = $2, epoch = tapes.epoch + 1, stop = found.stop, seq = found.seq FROM found
        WHERE tapes.number = found.number AND tapes.epoch = found.epoch AND found.owner <> $2 AND found.server IS NULL
        RETURNING tapes.epoch
    )
    SELECT found.*, claimed.epoch FROM found LEFT JOIN claimed ON true
    """  # noqa: S608
"""A session as it was found, and its next epoch, where it was free or its server was fenced.

`stop` and `epoch` are of one moment: after it, only a claim or a release can end that epoch, and then nothing is
changed. All steps of a server that was fenced before that moment are in the log at that moment.
"""

RELEASE = f"""
    WITH released AS (
        UPDATE tapes SET owner = '', epoch = tapes.epoch + 1, stop = found.stop, seq = found.seq
        FROM (SELECT t.number, t.epoch, {STOP} AS stop, {SEQ} AS seq
            FROM sessions AS s JOIN tapes AS t ON t.number = s.tape {LAST} WHERE s.id = $1 AND t.owner = $2) AS found
        WHERE tapes.number = found.number AND tapes.epoch = found.epoch RETURNING tapes.number
    ),
    touched AS (UPDATE sessions SET used = $3::float8 FROM released WHERE id = $1 AND $3::float8 IS NOT NULL)
    SELECT number FROM released
    """  # noqa: S608

CREATE = """
    WITH number AS (SELECT nextval('tape_numbers') AS number),
    tape AS (
        INSERT INTO tapes (number, root, parent, base, jump, depth, first, stop, epoch, owner)
        SELECT number, coalesce($1, number), $2, $3, coalesce($4, number), $5, $6, $3, 1, $7 FROM number
    ),
    session AS (
        INSERT INTO sessions
            (id, tenant, model, fingerprint, memory_size, opened, used, creation_key, creation_digest, force, tape)
        SELECT $8, $9, $10, $11, $12, $13, $14, $15, $16, $19, number FROM number
    ),
    kept AS (
        INSERT INTO snapshots (tape, step, taken, passing, state)
        SELECT number, $3, $14, false, $17::bytea FROM number WHERE $17::bytea IS NOT NULL
    ),
    counted AS (
        INSERT INTO counts VALUES ($18, $10, $9, 1)
        ON CONFLICT (server, model, tenant) DO UPDATE SET sessions = counts.sessions + 1
    )
    SELECT number FROM number
    """

RELEASE_KEY = """
    UPDATE sessions SET creation_key = NULL, creation_digest = NULL WHERE creation_key = $1 AND ended IS NOT NULL
    """

END = """
    WITH tape AS (
        UPDATE tapes SET epoch = epoch + 1, head = NULL, owner = NULL, stop = $5, seq = $6
        WHERE number = $7 AND epoch = $8 RETURNING number
    ),
    session AS (
        UPDATE sessions SET ended = $3, reason = $4, tape = NULL FROM tape
        WHERE id = $1 AND sessions.tape = tape.number RETURNING model, tenant
    ),
    counted AS (
        INSERT INTO counts SELECT $2, model, tenant, -1 FROM session
        ON CONFLICT (server, model, tenant) DO UPDATE SET sessions = counts.sessions - 1
    )
    SELECT count(*) FROM session
    """

MARK_VOLATILE = f"""
    WITH {FENCE}
    UPDATE sessions SET volatile = true FROM tapes JOIN fence ON fence.id = tapes.owner
    WHERE sessions.id = $2 AND tapes.number = sessions.tape
    """  # noqa: S608

TOUCH = """
    UPDATE sessions SET used = new.used FROM unnest($1::text[], $2::float8[]) AS new(id, used)
    WHERE sessions.id = new.id
    """

IDLE = """
    SELECT s.id FROM sessions AS s JOIN tapes AS t ON t.number = s.tape
    WHERE s.ended IS NULL AND s.used <= $1
        AND (t.owner = ANY($2::text[])
            OR NOT EXISTS (SELECT FROM servers WHERE id = t.owner AND renewed + lasts >= now()))
    ORDER BY s.used LIMIT $3
    """

RECORD_TIME = """
    INSERT INTO clock VALUES (1, $1, now())
    ON CONFLICT (number) DO UPDATE SET time = greatest(clock.time, excluded.time), at = excluded.at
    """

LATEST = """
    SELECT greatest(
        (SELECT time + CASE WHEN EXISTS (SELECT FROM servers WHERE id <> ALL($1::text[]) AND renewed + lasts >= now())
            THEN greatest(0, extract(epoch FROM now() - at)) ELSE 0 END FROM clock),
        (SELECT max(used) FROM sessions WHERE ended IS NULL),
        (SELECT max(ended) FROM sessions WHERE ended IS NOT NULL), 0)::float8
    """
"""While other servers live, time has passed since it was last recorded."""

FORGET = """
    DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE ended < $1 ORDER BY ended LIMIT $2)
    """

FROM_VERSION = """
    SELECT model, fingerprint FROM sessions WHERE ended IS NULL AND (model, fingerprint) >= ($1, $2)
    ORDER BY model, fingerprint LIMIT 1
    """
"""The first version, from this one on, of which sessions are open. Asked for this one alone, the planner may go through
all sessions of others.
"""

UNIQUE = "23505"
"""The code where a key is there already."""

RECORD_END = len(Record.__dataclass_fields__)


class OwnerRow(NamedTuple):
    """The rest of a row of FIND: why a session ended; its owner, that server's name if there is one, and whether its
    lease has run out.
    """

    reason: EndReason | None
    owner: str | None
    server: str | None
    is_dead: bool | None


class SessionTable:
    """The table `sessions`. Its methods are part of the caller's transaction, or are one statement."""

    def __init__(self, database: Database, owners: Callable[[], Collection[str]]) -> None:
        self._database = database
        self._owners = owners
        self.on_takeover: Callable[[], None] = lambda: None
        """Called when the lease of a server was ended that had run out: its sessions are free."""

    def find(self, session: str) -> Record | EndReason | None:
        """Return an open session, or why it ended; None for one that never was. Raises SessionDamaged."""
        row = self._database.row(FIND, session)
        return None if row is None else self._record(row)

    def claim(self, session: str, owner: str) -> tuple[Record | EndReason | Held | None, bool]:
        """Find a session, and make `owner` its owner; return it, and whether it was taken from a server that died."""
        while True:
            row = self._database.row(CLAIM, session, owner)
            if row is None:
                return None, False
            found, was, epoch = self._record(row), OwnerRow(*row[RECORD_END:-1]), row[-1]
            if not isinstance(found, Record) or was.owner == owner:
                return found, False
            if epoch is not None:
                return self._record((*row[:7], epoch, *row[8:])), was.owner != NOBODY
            if was.server is not None and not was.is_dead:
                return Held(str(was.owner), was.server), False
            self.fence(was.owner)  # or another owner was faster

    def fence(self, server: str | None) -> None:
        """Delete the row of a server whose lease has run out: none of its steps can be written any more."""
        if self._database.run("DELETE FROM servers WHERE id = $1 AND renewed + lasts < now()", server):
            self.on_takeover()

    def release(self, session: str, owner: str, used: float | None) -> int | None:
        """Let an owner give up a session that it has; return its tape, None where it has no such session.

        used: when the session was last used, if that is not written yet.
        """
        found = self._database.row(RELEASE, session, owner, None if used is None else float(used))
        return None if found is None else found[0]

    def insert(self, new: NewSession, owner: str, holder: Holder | None, oldest: int) -> Record:
        """Write a new session and its tape. Raises StoreFailed where its id or its key is taken."""
        opened = float(new.now if new.opened is None else new.opened)
        line = (None, None, None, 0) if holder is None else (holder.root, holder.number, holder.jump, holder.depth + 1)
        root, parent, jump, depth = line
        tape = (root, parent, new.base, jump, depth, 0 if holder else oldest, owner)
        version = (new.model, new.fingerprint, new.memory_size, opened, float(new.now))
        rest = (new.key, new.digest, new.snapshot, self._counter(), new.force)
        try:
            (number,) = self._database.row(CREATE, *tape, new.id, tenant_of(new.id), *version, *rest)
        except StoreFailed as error:
            if state(error) != UNIQUE:
                raise
            taken = f"session {new.id} cannot be opened: its id or its key {new.key!r} is taken"
            raise StoreFailed(f"{self._database.name}: {taken}") from None
        where = (new.base, new.base, oldest, new.base)
        return Record(new.id, *version, number, 1, *where, seq=None, next_tape=None, volatile=False, force=new.force)

    def release_key(self, key: str) -> None:
        """Take a key from the session that had it, if that has ended."""
        self._database.run(RELEASE_KEY, key)

    def end(self, session: str, reason: EndReason, now: float, tape: TapeRow) -> bool:
        """End a session, whose tape is locked; return False where another server has claimed it meanwhile."""
        place = (float(now), reason, tape.stop, tape.seq, tape.number, tape.epoch)
        return bool(self._database.row(END, session, self._counter(), *place)[0])

    def is_free(self, tape: TapeRow) -> bool:
        """Return whether no server has the session on a tape: it was released, or its server was fenced."""
        return self._database.row("SELECT 1 FROM servers WHERE id = $1", tape.owner) is None

    def tape(self, session: str) -> int | None:
        """Return the tape of an open session; None for a session that is not open."""
        found = self._database.row("SELECT tape FROM sessions WHERE id = $1 AND ended IS NULL", session)
        return None if found is None else int(found[0])

    def opened(self, session: str) -> int:
        """Return the tape of an open session. Raises StoreFailed."""
        tape = self.tape(session)
        if tape is None:
            raise StoreFailed(f"{self._database.name}: session {session} is not open")
        return tape

    def put(self, tape: int, last: int, volatile: bool | None = None) -> None:
        """Put the session that is on the tape `last` on another."""
        self._database.run(
            "UPDATE sessions SET tape = $1, volatile = coalesce($3, volatile) WHERE tape = $2", tape, last, volatile
        )

    def mark_volatile(self, session: str) -> None:
        """Mark an open session of this process as volatile. Raises StoreFailed, SessionMoved."""
        if not self._database.run(MARK_VOLATILE, list(self._owners()), session):
            self.opened(session)
            raise moved()

    def created(self, key: str) -> tuple[str, bytes] | None:
        """Return the id and the digest of the session that was opened under a key, if any."""
        found = self._database.row("SELECT id, creation_digest FROM sessions WHERE creation_key = $1", key)
        return None if found is None else (found[0], found[1] or b"")

    def newest(self, tenant: str, model: str | None, limit: int) -> list[Record]:
        """Return open sessions of a tenant, and of a model where one is named, the most recently used first."""
        chosen, values = ("AND model = $3", (model,)) if model is not None else ("", ())
        newest = f"""
            (SELECT * FROM sessions WHERE ended IS NULL AND tenant = $1 {chosen} ORDER BY used DESC LIMIT $2)
            """  # noqa: S608
        rows = self._database.rows(f"{RECORD} FROM {newest} AS s {JOINS} ORDER BY used DESC", tenant, limit, *values)
        return [cast(Record, self._record(row)) for row in rows]

    def counts(self, column: str) -> dict[str, int]:
        """Return the number of open sessions by `model`, or by `tenant`."""
        rows = self._database.rows(f"SELECT {column}, sum(sessions)::int8 FROM counts GROUP BY 1")  # noqa: S608
        return {name: count for name, count in rows if count}

    def has(self, model: str, fingerprint: str) -> bool:
        """Return whether sessions of a version of a model are open."""
        first: Row | None = self._database.row(FROM_VERSION, model, fingerprint)
        return first == (model, fingerprint)

    def touch(self, used: Collection[tuple[str, float]]) -> None:
        """Write when sessions were last used, in an order in which no two servers wait for each other."""
        last = dict(sorted(used))
        self._database.run(TOUCH, list(last), [float(moment) for moment in last.values()])

    def idle(self, time: float, limit: int) -> list[str]:
        """Return open sessions that were last used at a time or earlier, but those of other servers that live."""
        return [session for (session,) in self._database.rows(IDLE, float(time), list(self._owners()), limit)]

    def record_time(self, now: float) -> None:
        """Write the time, in seconds of the server's clock, unless a later one is there."""
        self._database.run(RECORD_TIME, float(now))

    def latest_time(self) -> float:
        """Return the latest time that was written, in seconds of the server's clock; 0 where none was."""
        (latest,) = self._database.row(LATEST, list(self._owners()))
        return float(latest)

    def forget(self, time: float, limit: int) -> int:
        """Forget sessions that ended before a time, at most `limit`; return how many were forgotten."""
        return self._database.run(FORGET, float(time), limit)

    def _counter(self) -> str:
        """Return under which name this process counts: one of its own, so that no other waits for it."""
        return next(iter(self._owners()), NOBODY)

    def _record(self, row: Row) -> Record | EndReason:
        """Return the session of a row of FIND. Raises SessionDamaged."""
        reason = row[RECORD_END]
        if reason is not None:
            return cast(EndReason, reason)
        if row[6] is None or row[10] is None:
            raise SessionDamaged(
                f"{self._database.name}: the tape of session {row[0]} is missing; engram check lists what is damaged"
            )
        return Record(*row[:RECORD_END])
