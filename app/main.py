"""The application: models, store, sessions and routes put together, started and stopped."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator

from fastapi import FastAPI
from starlette.datastructures import State
from starlette.middleware.cors import CORSMiddleware

from app.access.hosts import Hosts
from app.access.keyring import Keyring
from app.api import routes, stream
from app.api.decoders import Decoders
from app.api.gate import Admission, Gate, cross_origin
from app.api.hot import HotPaths
from app.api.methods import AnswerHead
from app.api.middleware import MeasureRequests, ReleaseLeases, TraceRequests
from app.api.openapi import DocumentedApp
from app.api.pages import add_pages
from app.api.problems import add_problem_handlers
from app.api.request_ids import IdentifyRequests
from app.api.uploads import Uploads
from app.budget import budgets_of, keep_trimming
from app.catalogue import ServedModel
from app.descriptors import watch_files
from app.loading import load_models, open_keyring, open_store
from app.metrics import Metrics
from app.reloading import Reloader
from app.sessions.clock import Clock
from app.sessions.service import Limits, SessionService
from app.settings import Settings
from app.stores.writer import Writer
from app.tracing import note_submitted, open_tracing
from app.watching import DataWatch, watch_loop

logger = logging.getLogger(__name__)

LAST_COMMIT_SECONDS = 0.5
"""The least time that the store has for its last commits when the server stops."""


def create_app(settings: Settings, keyring: Keyring | None = None) -> FastAPI:
    """Return the application, its models loaded and nothing running yet; keyring: that of the settings, if not given.

    Raises SettingsError if nothing can be served with these settings, StoreFailed if the data directory cannot be used.
    """
    keyring = keyring or open_keyring(settings)
    metrics, budgets = Metrics(), budgets_of(settings)
    logger.info("memory for all clients together: %s", budgets.describe())
    for name, budget in budgets.items():
        metrics.watch(name, budget)
    store = open_store(settings)
    writer = Writer(
        store, metrics, settings.durability, settings.commit_interval, settings.sync_interval, settings.step_timeout
    )
    models = load_models(settings, metrics, writer, budgets)
    app = DocumentedApp(
        title="Engram",
        description="Neural networks with memory, served: sessions keep their state here, and anyone may look into it.",
        lifespan=_lifespan,
        servers=[{"url": ".", "description": "where this document is"}],  # a proxy may serve all under a prefix
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.settings, app.state.metrics, app.state.models, app.state.writer = settings, metrics, models, writer
    app.state.keyring = keyring
    metrics.build((model.backend for model in models), settings.store)
    metrics.watch_log(lambda: writer.lag, lambda: writer.waiting)
    app.state.decoders, app.state.closing, app.state.budgets = Decoders(), None, budgets
    app.state.uploads = Uploads(settings.data if settings.store == "sqlite" else None)
    app.state.sessions = SessionService(
        models,
        writer,
        metrics,
        Limits(settings.max_sessions, settings.max_resident, settings.max_queue, settings.idle_timeout),
        Clock(store.latest_time()),
        store.counts(),
        store.tenants(),
        settings.durability,
        settings.snapshots,
    )
    app.state.admission = Admission(Hosts(settings.host, settings.hosts, settings.origins), keyring)
    app.state.tracing = open_tracing(settings)
    prepare = _nothing if app.state.tracing is None else _trace_runs
    for model in models:
        prepare(model)
    app.state.reloader = Reloader(settings, metrics, writer, models, app.state.sessions, budgets, prepare)
    _add_interface(app)
    return app


def _nothing(_: ServedModel) -> None:
    """Prepare nothing: no traces are sent."""


def _trace_runs(model: ServedModel) -> None:
    """Have the runs of a model add their times to the traces of their requests."""
    model.engine.watch(note_submitted)


def _add_interface(app: FastAPI) -> None:
    """Add the routes, the handlers of errors and the middleware; the last middleware is the outermost."""
    app.include_router(routes.router)
    app.include_router(stream.router)
    add_pages(app)
    add_problem_handlers(app)
    app.add_middleware(AnswerHead)
    app.add_middleware(HotPaths, routes=routes.router.routes)
    app.add_middleware(ReleaseLeases)
    app.add_middleware(Gate, admission=app.state.admission)
    if app.state.settings.origins:
        app.add_middleware(CORSMiddleware, **cross_origin(app.state.settings.origins))
    app.add_middleware(MeasureRequests, metrics=app.state.metrics)
    if app.state.tracing is not None:
        app.add_middleware(TraceRequests, tracing=app.state.tracing)
    app.add_middleware(IdentifyRequests, access_log=app.state.settings.access_log)


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.writer.start()
    for model in app.state.models:
        model.engine.start()
    settings, metrics = app.state.settings, app.state.metrics
    upkeep = (
        app.state.sessions.ending.keep_expiring(),
        app.state.keyring.keep_fresh(),
        app.state.reloader.keep_releasing(),
        keep_trimming(app.state.budgets),
        watch_files(),
        watch_loop(metrics),
    )
    kept = [asyncio.create_task(work) for work in upkeep]
    data = DataWatch(metrics, settings.data)
    if settings.store != "memory":
        data.start()
    try:
        yield
    finally:
        for task in kept:
            task.cancel()
        data.end()
        await close(app.state)
        await asyncio.to_thread(app.state.decoders.close)
        app.state.keyring.close()
        if app.state.tracing is not None:
            await app.state.tracing.close()


async def close(state: State) -> None:
    """Stop the server once; a second call waits for the first."""
    if state.closing is None:
        state.closing = asyncio.ensure_future(_stop(state))
    await asyncio.shield(state.closing)


async def _stop(state: State) -> None:
    """Finish the accepted requests, keep the sessions and stop, within `shutdown_timeout`.

    Sessions come first, because they still need the engines; then the engines, whose last steps the store still writes.
    """
    end = time.monotonic() + state.settings.shutdown_timeout
    await state.sessions.close(state.settings.shutdown_timeout)
    await asyncio.gather(*(model.engine.close(max(0.0, end - time.monotonic())) for model in state.models.all))
    await state.writer.close(max(LAST_COMMIT_SECONDS, end - time.monotonic()))
