"""The application: models, store, sessions and routes put together, started and stopped."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.datastructures import State
from starlette.middleware.cors import CORSMiddleware

from app.access.hosts import Hosts
from app.access.keyring import Keyring
from app.api import routes, stream
from app.api.decoders import Decoders
from app.api.gate import Admission, Gate, cross_origin
from app.api.hot import HotPaths
from app.api.leases import ReleaseLeases
from app.api.methods import AnswerHead
from app.api.middleware import MeasureRequests, TraceRequests
from app.api.openapi import BODIES, DocumentedApp, operation_name
from app.api.pages import add_pages
from app.api.problems import add_problem_handlers
from app.api.request_ids import IdentifyRequests
from app.api.uploads import Uploads
from app.api.v2 import routes as v2
from app.api.v2.inference import OpenInference
from app.api.v2.schemas import BODIES as V2_BODIES
from app.api.v2.sequences import Sequences
from app.api.v2.statistics import Statistics
from app.budget import keep_trimming
from app.descriptors import watch_files
from app.loading import load_models, open_keyring, open_store, server_budgets
from app.metrics import Metrics
from app.reloading import Reloader
from app.sessions.clock import Clock
from app.sessions.service import Limits, SessionService
from app.settings import Settings, kind_of
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
    app = DocumentedApp(
        bodies=(*BODIES, *V2_BODIES),
        title="Engram",
        description="Neural networks with memory, served: sessions keep their state here, and one may look into it.",
        lifespan=_lifespan,
        servers=[{"url": ".", "description": "where this document is"}],  # a proxy may serve all under a prefix
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=operation_name,
    )
    _add_access(app.state, settings, keyring or open_keyring(settings))
    _add_sessions(app.state, settings)
    _add_watches(app.state, settings)
    _add_interface(app)
    return app


def _add_access(state: State, settings: Settings, keyring: Keyring) -> None:
    """Add who may ask, and how much all clients together may have."""
    state.settings, state.keyring, state.draining, state.closing = settings, keyring, False, None
    state.admission = Admission(Hosts(settings.host, settings.hosts, settings.origins), keyring)
    state.budgets = server_budgets(settings)
    logger.info("memory for all clients together: %s", state.budgets.describe())
    state.decoders = Decoders()
    state.uploads = Uploads(_directory(settings))


def _add_sessions(state: State, settings: Settings) -> None:
    """Add the store, the models and the sessions, and what loads the models again."""
    state.tracing, state.metrics = open_tracing(settings), Metrics()
    store, ownership = open_store(settings, state.metrics)
    durability, intervals = settings.durability, (settings.commit_interval, settings.sync_interval)
    state.writer = Writer(store, state.metrics, durability, *intervals, settings.step_timeout, ownership)
    state.models = load_models(settings, state.metrics, state.writer, state.budgets)
    state.sessions = SessionService(
        state.models,
        state.writer,
        state.metrics,
        Limits(settings.max_sessions, settings.max_resident, settings.max_queue, settings.idle_timeout),
        Clock(store.latest_time()),
        store.counts(),
        store.tenants(),
        settings.durability,
        settings.snapshots,
        ownership,
    )
    state.open_inference = OpenInference(Sequences(state.sessions), Statistics(state.metrics))
    submitted = None if state.tracing is None else note_submitted
    for model in state.models:
        model.engine.watch(submitted)
    state.reloader = Reloader(
        settings, state.metrics, state.writer, state.models, state.sessions, state.budgets, submitted
    )


def _add_watches(state: State, settings: Settings) -> None:
    """Add the measurements that are taken at each scrape, or again and again."""
    metrics, writer, directory = state.metrics, state.writer, _directory(settings)
    metrics.build((model.backend for model in state.models), kind_of(settings.store))
    metrics.watch_log(lambda: writer.lag, lambda: writer.waiting)
    for name, budget in state.budgets.items():
        metrics.watch(name, budget)
    state.data_watch = None if directory is None else DataWatch(metrics, directory)


def _directory(settings: Settings) -> Path | None:
    """Return the directory in which a server may write; None: no session is in a file of its own."""
    return settings.data if kind_of(settings.store) == "sqlite" else None


def _add_interface(app: FastAPI) -> None:
    """Add the routes, the handlers of errors and the middleware; the last middleware is the outermost."""
    app.include_router(routes.router)
    app.include_router(stream.router)
    app.include_router(v2.router)
    add_pages(app)
    add_problem_handlers(app)
    app.add_middleware(AnswerHead)
    app.add_middleware(HotPaths, routes=[*routes.router.routes, *v2.router.routes])
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
    state: State = app.state
    state.writer.start()
    for model in state.models:
        model.engine.start()
    state.sessions.handover.start()
    upkeep = [_kept(work) for work in _upkeep(state)]
    if state.data_watch is not None:
        state.data_watch.start()
    try:
        yield
    finally:
        for task in upkeep:
            task.cancel()
        if state.data_watch is not None:
            state.data_watch.end()
        await close(state)
        await asyncio.to_thread(state.decoders.close)
        state.keyring.close()
        if state.tracing is not None:
            await state.tracing.close()


def _upkeep(state: State) -> Iterator[Coroutine[Any, Any, None]]:
    """Yield the work that goes on as long as the server runs."""
    yield state.sessions.ending.keep_expiring()
    yield state.sessions.keep_in_step()
    yield state.keyring.keep_fresh()
    yield state.reloader.keep_releasing()
    yield keep_trimming(state.budgets)
    yield watch_files()
    yield watch_loop(state.metrics)


def _kept(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Return a task that does work until it is cancelled; an error that ends it before is logged at once."""
    task = asyncio.create_task(work)
    task.add_done_callback(_note_end)
    return task


def _note_end(task: asyncio.Task[None]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        logger.error("a part of the upkeep has failed, and is not done until the next start", exc_info=error)


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
    try:
        await state.sessions.close(state.settings.shutdown_timeout)
        await asyncio.gather(*(model.engine.close(max(0.0, end - time.monotonic())) for model in state.models.all))
    finally:
        await state.writer.close(max(LAST_COMMIT_SECONDS, end - time.monotonic()))
