"""A store in PostgreSQL for the laws that all stores obey, which know of one process with several owners."""

from app.stores.base import KEEP_ALL, EndReason, Held, Record, Retention
from app.stores.postgres import PostgresStore

OWNERS = ("me", "them")

REGISTER = "INSERT INTO servers (id, name, place, lasts) VALUES ($1, $1, '', '1 hour') ON CONFLICT (id) DO NOTHING"

FREE = "UPDATE tapes SET owner = '' WHERE number = (SELECT tape FROM sessions WHERE id = $1)"


class OneProcess(PostgresStore):
    """The store of a process that claims as "me" and as "them", and may take a session of one for the other."""

    def __init__(self, url: str, retention: Retention = KEEP_ALL) -> None:
        super().__init__(url, retention, lambda: OWNERS, "of a test")
        for owner in OWNERS:
            self._database.run(REGISTER, owner)

    def claim(self, session: str, owner: str) -> Record | EndReason | Held | None:
        found = super().claim(session, owner)
        if not isinstance(found, Held):
            return found
        self._database.run(FREE, session)
        return super().claim(session, owner)
