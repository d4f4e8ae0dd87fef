"""The search for damage in the store in PostgreSQL: the logs of its tapes must have each step once, in order."""

from collections.abc import Callable, Iterator

from app.stores.postgres.database import Database
from app.stores.postgres.tapes import LAST, STOP

AT_ONCE = 500
"""Tapes to read at a time."""

SOME = f"""
    SELECT t.number, s.id, CASE WHEN t.parent IS NULL THEN t.first ELSE t.base END, {STOP}, parent.number IS NULL,
        t.parent, root.number IS NULL
    FROM tapes AS t LEFT JOIN sessions AS s ON s.tape = t.number LEFT JOIN tapes AS parent ON parent.number = t.parent
    LEFT JOIN tapes AS root ON root.number = t.root {LAST}
    WHERE t.number > $1 ORDER BY t.number LIMIT $2
    """  # noqa: S608

ENTRIES = """
    SELECT step, steps, epoch FROM log WHERE tape = $1 AND step + steps > $2 AND step < $3 ORDER BY step, written
    """


def problems(database: Database, progress: Callable[[int, int], None]) -> Iterator[str]:
    """Yield a line for everything that is damaged; call `progress` with the open sessions done, and with all."""
    (count,) = database.row("SELECT count(*) FROM sessions WHERE ended IS NULL")
    number = done = 0
    while rows := database.rows(SOME, number, AT_ONCE):
        for number, session, start, stop, no_parent, parent, no_root in rows:
            if session is not None:
                progress(done, count)
                done += 1
            name = f"tape {number}" if session is None else f"session {session}: tape {number}"
            if no_root or (parent is not None and no_parent):
                yield f"{name} begins with a tape that is missing"
            yield from (f"{name}: {fault}" for fault in _faults(database, number, start, stop))
    progress(count, count)


def _faults(database: Database, tape: int, start: int, stop: int) -> Iterator[str]:
    """Yield the faults of the log of a tape, which is to have the steps after `start`, up to `stop`."""
    at, last = start, 0
    for step, steps, epoch in database.rows(ENTRIES, tape, start, stop):
        if step > at:
            yield f"the log goes on at step {step} after step {at}"
        if step < at and at != start:
            yield f"the log has steps from {step} on twice, up to step {at}"
        if epoch < last:
            yield f"the epoch shrinks from {last} to {epoch} at step {step}"
        at, last = max(at, step + steps), epoch
    if at < stop:
        yield f"the log ends at step {at}, and not at {stop}"
