"""The sessions in the arenas of each version of a model, in the order in which they were last used."""

import heapq
from collections import OrderedDict
from collections.abc import Iterator

from app.catalogue import ServedModel
from app.sessions.session import Session


class Recency:
    """Resident sessions by model, the least recently used first."""

    def __init__(self) -> None:
        self._sessions: dict[ServedModel, OrderedDict[str, Session]] = {}

    def count(self, model: ServedModel | None = None) -> int:
        """Return the number of resident sessions, of one model if it is given."""
        if model is None:
            return sum(map(len, self._sessions.values()))
        return len(self._sessions.get(model, ()))

    def of(self, model: ServedModel | None = None) -> Iterator[Session]:
        """Iterate over the resident sessions, of one model if it is given, the least recently used first."""
        if model is None:
            return heapq.merge(*(sessions.values() for sessions in self._sessions.values()), key=lambda s: s.used)
        return iter(self._sessions.get(model, {}).values())

    def all(self) -> list[Session]:
        """Return the resident sessions of all models."""
        return [session for sessions in self._sessions.values() for session in sessions.values()]

    def add(self, session: Session) -> None:
        """Add a session that has become resident."""
        self._sessions.setdefault(session.model, OrderedDict())[session.id] = session

    def use(self, session: Session) -> None:
        """Note that a resident session was used."""
        self._sessions[session.model].move_to_end(session.id)

    def remove(self, session: Session) -> None:
        """Remove a session that leaves its arena."""
        of_model = self._sessions[session.model]
        del of_model[session.id]
        if not of_model:
            del self._sessions[session.model]  # a retired one must not be kept in memory by this
