"""The partitions of the log: made ahead of time, and dropped as a whole when retention asks for none of their rows.

      keep_seconds                                          now
           |                                                 |
    log_3  |  log_4  |  log_5  |  ...                |  log_11  |  log_12
     |                                                      ^
     '--- rows that are still needed: moved ----------------'

Nothing is deleted row by row, but for the rows that are still needed of the partition that is to be dropped: those of
tapes that are there, from the first step on that is kept.
"""

from datetime import datetime, timedelta
from typing import NamedTuple

from app.errors import StoreFailed
from app.stores.base import Retention
from app.stores.postgres.database import Database, state
from app.stores.postgres.schema import LOCK_OF_UPKEEP, LOCKS

SHORTEST = 60.0
LONGEST = 30 * 86400.0
"""Seconds that a partition is for; between these, an eighth of the time for which steps are kept."""

MOVED_AT_ONCE = 1000
"""Rows to look at in one call."""

SHORTEST_KEPT = 120.0
"""Seconds after its end in which rows of a partition may still be committed, by a transaction that began before it."""

LONGEST_KEPT = 1e10
"""Seconds: a longer time is as good as forever, and too long for the database."""

IS_DUE = """
    SELECT current_setting('transaction_read_only') = 'off'
        AND (count(*) = 0 OR max(ends) < now() + $1 OR min(begins) > now())
    FROM partitions
    """

OLD = """
    SELECT number FROM partitions
    WHERE ends < now() - make_interval(secs => $1) AND pg_try_advisory_xact_lock($2::int4, $3::int4)
    ORDER BY ends LIMIT 1
    """

LOCKED = "55P03"
"""The code where others use what is to be locked."""

MOVE = """
    WITH next AS (SELECT tape, step FROM log_{0} WHERE (tape, step) > ($1, $2) ORDER BY tape, step LIMIT $3),
    moved AS (
        DELETE FROM log_{0} AS old USING next JOIN tapes AS t ON t.number = next.tape
        WHERE old.tape = next.tape AND old.step = next.step
            AND old.step + old.steps > t.first AND (t.owner IS NOT NULL OR old.step < t.stop)
        RETURNING old.*
    ),
    kept AS (
        INSERT INTO log (tape, step, steps, epoch, seq, last_seq, inputs)
        SELECT tape, step, steps, epoch, seq, last_seq, inputs FROM moved
    )
    SELECT tape, step FROM next ORDER BY tape DESC, step DESC LIMIT 1
    """


class Position(NamedTuple):
    """The last row of a partition that was looked at."""

    partition: int
    tape: int = 0
    step: int = 0


class Partitions:
    """The partitions of the table `log`, and the table of them. Every method is a transaction."""

    def __init__(self, database: Database, retention: Retention) -> None:
        self._database = database
        self._keep = retention.seconds
        self._span = timedelta(seconds=min(max(retention.seconds / 8, SHORTEST), LONGEST))
        self._at = Position(0)

    def extend(self) -> None:
        """Make partitions for the present, and for some time to come, unless they are there."""
        if not self._is_due():
            return
        with self._database.transaction():
            self._database.run("SELECT pg_advisory_xact_lock($1::int4, $2::int4)", LOCKS, LOCK_OF_UPKEEP)
            last, first, end, now = self._database.row(
                "SELECT coalesce(max(number), 0), min(begins), max(ends), clock_timestamp() FROM partitions"
            )
            if first is not None and now < first:  # the database's clock was set back
                last += 1
                self._make(last, now - self._span, first)
            begin = end or now - self._span
            while begin < now + self._span:
                last += 1
                end = max(begin, now) + self._span
                self._make(last, begin, end)
                begin = end

    def drop_some(self) -> bool:
        """Do a part of the work to drop the oldest partition, if it is old; return whether more is left to do.

        One server at a time does this. Where others use the log for long, the partition is left for the next time.
        """
        try:
            with self._database.transaction():
                return self._drop_some()
        except StoreFailed as error:
            if state(error) != LOCKED:
                raise
            return False

    def _drop_some(self) -> bool:
        kept = min(max(self._keep, SHORTEST_KEPT), LONGEST_KEPT)
        found = self._database.row(OLD, kept, LOCKS, LOCK_OF_UPKEEP)
        if found is None:
            return False
        (number,) = found
        if self._at.partition != number:
            self._at = Position(number)
        last = self._database.row(MOVE.format(number), self._at.tape, self._at.step, MOVED_AT_ONCE)
        if last is not None:
            self._at = Position(number, *last)
            return True
        self._database.run("SET LOCAL lock_timeout = '500ms'")
        self._database.run(f"DROP TABLE log_{number}")
        self._database.run("DELETE FROM partitions WHERE number = $1", number)
        return True

    def _is_due(self) -> bool:
        """Return whether partitions are missing; of a database that is read-only, none is: it is only read."""
        (is_due,) = self._database.row(IS_DUE, self._span)
        return bool(is_due)

    def _make(self, number: int, begins: datetime, ends: datetime) -> None:
        """Make a partition. It is attached when it is whole, for which nobody has to wait."""
        self._database.run(f"CREATE TABLE log_{number} (LIKE log INCLUDING DEFAULTS INCLUDING STORAGE)")
        self._database.run(f"CREATE UNIQUE INDEX ON log_{number} (tape, step)")
        self._database.run(f"ALTER TABLE log ATTACH PARTITION log_{number} FOR VALUES FROM ('{begins}') TO ('{ends}')")
        self._database.run("INSERT INTO partitions VALUES ($1, $2, $3)", number, begins, ends)
