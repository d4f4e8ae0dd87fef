"""How many sessions of each model are open."""

from collections.abc import Mapping

from app.catalogue import ModelCatalogue
from app.errors import SessionsFull
from app.metrics import Metrics
from app.stores.base import EndReason


class OpenSessions:
    """Counts the open sessions of each model, in the metrics too, and bounds them."""

    def __init__(self, models: ModelCatalogue, metrics: Metrics, counts: Mapping[str, int], most: int) -> None:
        """counts: open sessions of each model; most: how many a model may have."""
        self._metrics = metrics
        self._counts = dict(counts)
        self._most = most
        for model in models:
            self._show(model.name)

    def reserve(self, model: str) -> None:
        """Count a session that is about to be opened. Raises SessionsFull."""
        open_now = self._counts.get(model, 0)
        if open_now >= self._most:
            raise SessionsFull(
                f"{open_now} sessions of {model} are open, and no more can be: delete some, or try later"
            )
        self._counts[model] = open_now + 1

    def confirm(self, model: str, opened: bool) -> None:
        """Note whether a session that was reserved was opened."""
        self._counts[model] -= not opened
        self._show(model)

    def ended(self, model: str, reason: EndReason) -> None:
        """Count a session that has ended."""
        self._counts[model] -= 1
        self._show(model)
        self._metrics.ended.labels(model, reason).inc()

    def _show(self, model: str) -> None:
        self._metrics.sessions.labels(model).set(self._counts.get(model, 0))
