"""How many sessions of each model, and of each tenant, are open."""

from collections import Counter
from collections.abc import Mapping

from app.catalogue import ModelCatalogue
from app.errors import SessionsFull, TenantFull
from app.metrics import Metrics
from app.stores.base import EndReason
from app.tenants import Tenant


class OpenSessions:
    """Counts the open sessions of each model, in the metrics too, and of each tenant; and bounds both."""

    def __init__(
        self,
        models: ModelCatalogue,
        metrics: Metrics,
        counts: Mapping[str, int],
        tenants: Mapping[str, int],
        most: int,
    ) -> None:
        """counts, tenants: open sessions of each model, and of each tenant; most: how many a model may have."""
        self._metrics = metrics
        self._counts = Counter(counts)
        self._tenants = Counter(tenants)
        self._most = most
        self._reserved: Counter[tuple[str, str]] = Counter()
        """Sessions that are about to be opened, by model and tenant."""
        for model in models:
            self._show(model.name)

    def reserve(self, model: str, tenant: Tenant, in_place: bool = False) -> None:
        """Count a session that is about to be opened; in_place: of one that ends first.

        Raises SessionsFull, TenantFull, unless it is in place of another.
        """
        if not in_place:
            self._check_room(model, tenant)
        self._counts[model] += 1
        self._tenants[tenant.name] += 1
        self._reserved[model, tenant.name] += 1

    def _check_room(self, model: str, tenant: Tenant) -> None:
        if tenant.max_sessions is not None and self._tenants[tenant.name] >= tenant.max_sessions:
            raise TenantFull(
                f"the tenant of your key has {self._tenants[tenant.name]} open sessions, and the key opens one only "
                f"while there are fewer than {tenant.max_sessions}: delete some, or try later",
                expected=f"fewer than {tenant.max_sessions} open sessions",
            )
        if self._counts[model] >= self._most:
            raise SessionsFull(
                f"{self._most} sessions of {model} are open, and no more can be (setting max_sessions): delete some, "
                "or try later"
            )

    def confirm(self, model: str, tenant: Tenant, opened: bool) -> None:
        """Note whether a session that was reserved was opened."""
        self._reserved[model, tenant.name] -= 1
        if not opened:
            self._count_out(model, tenant.name)
        self._show(model)

    def follow(self, counts: Mapping[str, int], tenants: Mapping[str, int]) -> None:
        """Take over the counts of a store in which other servers open and end sessions too."""
        known = set(self._counts)
        self._counts, self._tenants = Counter(counts), Counter(tenants)
        for (model, tenant), count in (+self._reserved).items():
            self._counts[model] += count
            self._tenants[tenant] += count
        for model in known | set(self._counts):
            self._show(model)

    def ended(self, model: str, tenant: str, reason: EndReason) -> None:
        """Count a session that has ended."""
        self._count_out(model, tenant)
        self._show(model)
        self._metrics.ended.labels(model, reason).inc()

    def _count_out(self, model: str, tenant: str) -> None:
        self._counts[model] -= 1
        self._tenants[tenant] -= 1
        if not self._tenants[tenant]:
            del self._tenants[tenant]

    def _show(self, model: str) -> None:
        self._metrics.sessions.labels(model).set(self._counts[model])
