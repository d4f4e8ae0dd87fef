"""The sessions in the arenas of each model, in the order in which they were last used."""

from collections import OrderedDict
from collections.abc import Iterator

from app.sessions.session import Session


class Recency:
    """Resident sessions by model, the least recently used first."""

    def __init__(self) -> None:
        self._sessions: dict[str, OrderedDict[str, Session]] = {}

    def count(self, model: str) -> int:
        """Return the number of resident sessions of a model."""
        return len(self._sessions.get(model, ()))

    def of(self, model: str) -> Iterator[Session]:
        """Iterate over the resident sessions of a model, the least recently used first."""
        return iter(self._sessions.get(model, {}).values())

    def all(self) -> list[Session]:
        """Return the resident sessions of all models."""
        return [session for sessions in self._sessions.values() for session in sessions.values()]

    def add(self, session: Session) -> None:
        """Add a session that has become resident."""
        self._sessions.setdefault(session.model.name, OrderedDict())[session.id] = session

    def use(self, session: Session) -> None:
        """Note that a resident session was used."""
        self._sessions[session.model.name].move_to_end(session.id)

    def remove(self, session: Session) -> None:
        """Remove a session that leaves its arena."""
        del self._sessions[session.model.name][session.id]
