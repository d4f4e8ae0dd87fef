"""The checkpoints loaded again while the server runs: models added, changed and removed; versions of before released.

reload    load on another thread what is new -> offer it in one step -> retire what it replaced
retired   serves the sessions that began with it -> released once none is left
"""

import asyncio
import logging
import time

from app.budget import Budgets
from app.catalogue import ModelCatalogue, Reloaded, ServedModel
from app.engine.engine import Submitted
from app.errors import ReloadFailed
from app.loading import load_again
from app.metrics import Metrics
from app.sessions.service import SessionService
from app.settings import Settings, SettingsError, kind_of
from app.stores.writer import Writer

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""Seconds between two looks whether a retired version is still needed."""

GRACE_SECONDS = 5.0
"""Seconds for which a retired version runs at least: requests that came before the reload may be on their way to it."""

CLOSE_SECONDS = 10.0
"""Seconds in which the last requests of a retired version are finished."""


class Reloader:
    """Loads the checkpoints again, and releases the versions that nobody needs."""

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        writer: Writer,
        models: ModelCatalogue,
        sessions: SessionService,
        budgets: Budgets,
        submitted: Submitted | None,
    ) -> None:
        """submitted: of the engine of each model that is loaded, as `Engine.watch` has it."""
        self._settings = settings
        self._metrics = metrics
        self._writer = writer
        self._models = models
        self._sessions = sessions
        self._budgets = budgets
        self._submitted = submitted
        self._turn = asyncio.Lock()
        self._retired: dict[ServedModel, float] = {}
        """retired version -> the monotonic time at which it was seen first"""

    async def reload(self) -> Reloaded:
        """Load the checkpoints again, one call after the other, and return what has changed.

        Sessions stay on the version that they began with. Raises ReloadFailed, after which everything is as before;
        ShuttingDown.
        """
        async with self._turn:
            self._sessions.turns.check_open()
            before = {model.name: model for model in self._models}
            try:
                models, failures = await asyncio.to_thread(
                    load_again,
                    self._settings,
                    self._metrics,
                    self._writer,
                    self._budgets,
                    before,
                    self._models.retired,
                )
            except SettingsError as error:
                raise ReloadFailed(f"{error}; everything is served as before") from error
            self._sessions.turns.check_open()
            running = set(self._models.all)
            for model in models.values():
                if model not in running:
                    model.engine.watch(self._submitted)
                    model.engine.start()
            self._models.replace(models, failures)
            self._metrics.build((model.backend for model in self._models), kind_of(self._settings.store))
        reloaded = _difference(before, models, failures)
        logger.info("checkpoints loaded again: %s", reloaded.summary())
        return reloaded

    async def keep_releasing(self) -> None:
        """Release the retired versions that nobody needs, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.release_unneeded()
            except Exception:
                logger.exception("versions of before could not be released; trying again")

    async def release_unneeded(self) -> None:
        """Stop the retired versions whose last session has ended, and free their memory."""
        now = time.monotonic()
        self._retired = {model: self._retired.get(model, now) for model in self._models.retired}
        for model, since in [*self._retired.items()]:
            if now - since >= GRACE_SECONDS and not model.engine.sequences and not await self._sessions.needs(model):
                async with self._turn:
                    await self._release(model)

    async def _release(self, model: ServedModel) -> None:
        if model not in self._models.retired:  # it is on offer again
            return
        self._models.release(model)
        del self._retired[model]
        await model.engine.close(CLOSE_SECONDS)
        model.engine.release()
        logger.info("%s: version %s is released: its last session has ended", model.name, model.fingerprint[:16])


def _difference(before: dict[str, ServedModel], after: dict[str, ServedModel], failures: dict[str, str]) -> Reloaded:
    return Reloaded(
        added=[name for name in after if name not in before],
        changed=[name for name in after if name in before and after[name] is not before[name]],
        removed=[name for name in before if name not in after],
        failed=failures,
        models=[*after],
    )
