"""Serve the application by uvicorn until a stop signal."""

import asyncio
import dataclasses
import gc
import logging
import math
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable

import uvicorn
from starlette.datastructures import State

from app.access.hosts import is_local
from app.access.keyring import Keyring
from app.api.at_once import AnswerAtOnce
from app.catalogue import Reloaded
from app.descriptors import connections_within
from app.errors import EngramError
from app.futures import begin
from app.loading import keys_command, open_keyring
from app.logs import set_up_logging
from app.main import close, create_app
from app.profiling import Profiler
from app.protocols.connections import Connections, Limits
from app.protocols.http import AtOnce, HttpProtocol, Never, answering
from app.protocols.websocket import limited
from app.reloading import Reloader
from app.settings import Settings, SettingsError

logger = logging.getLogger(__name__)

# The local address of a server that listens on every address
LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104

RELOAD_SIGNAL: signal.Signals | None = getattr(signal, "SIGHUP", None)
"""The signal by which the checkpoints are loaded again; Windows has none."""

COLLECTED_AFTER = 50_000
"""New objects after which Python collects garbage: a tick makes far fewer than a server holds."""

SWITCH_SECONDS = 2e-4
"""Time after which a busy event loop lets go of the interpreter for a thread that waits for it.

The store's thread asks for it some forty times a commit. With Python's 5 ms, a loop that is busy with the requests of
one client kept the steps of all others waiting for 200 ms.
"""

ANSWER_SECONDS = 2
"""Time for the last answers to be sent after the engines have given up."""

DRAIN_TICK = 0.05
"""Seconds between two looks at the requests in work."""


def serve(settings: Settings) -> int:
    """Serve until a stop signal comes, and return the exit status.

    Raises SettingsError, and StoreFailed, as `create_app` does, and for an address that needs a key.
    """
    set_up_logging(settings.log_level, settings.log_format)
    keyring = open_keyring(settings)
    check_address(settings, keyring)
    profiler = None if settings.profile is None else Profiler(settings.profile)
    app = create_app(settings, keyring)
    budgets = app.state.budgets
    connections = Connections(
        limits_of(settings), app.state.metrics.refusal, frames=budgets.uploads, answers=budgets.answers
    )
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        log_level="error" if settings.log_level == "error" else "warning",  # below, it logs queries
        access_log=False,  # IdentifyRequests writes it
        http=answering(_at_once(app.state, settings), connections),
        ws=limited(connections),
        ws_max_size=2 * settings.max_body_bytes,
        timeout_keep_alive=settings.keep_alive_timeout,  # type: ignore[arg-type]
        timeout_graceful_shutdown=math.ceil(settings.shutdown_timeout) + ANSWER_SECONDS,
        lifespan="on",
    )
    server = _Server(config, profiler)
    try:
        server.run()
    except SystemExit:  # uvicorn could not start, and has logged why
        return 1
    return 0


def _at_once(state: State, settings: Settings) -> AtOnce:
    """Return what answers requests without ASGI: nothing, if each one is to be logged or traced."""
    if settings.access_log or state.tracing is not None:
        return Never()
    return AnswerAtOnce(state.admission, state.models, state.sessions, settings, state.metrics)


def limits_of(settings: Settings) -> Limits:
    """Return the limits of connections."""
    named = {field.name: getattr(settings, field.name) for field in dataclasses.fields(Limits)}
    return Limits(**named | {"max_connections": connections_within(settings.max_connections)})


class _Server(uvicorn.Server):
    """Logs its address once it listens, and lets the engines finish while its connections are drained."""

    def __init__(self, config: uvicorn.Config, profiler: Profiler | None) -> None:
        super().__init__(config)
        self._profiler = profiler
        self._reloads: set[asyncio.Task[Reloaded]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        _spare_the_collector()
        sys.setswitchinterval(SWITCH_SECONDS)
        if RELOAD_SIGNAL is not None and threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().add_signal_handler(RELOAD_SIGNAL, self._reload)
        if self._profiler is not None:
            self._profiler.start()
        for server in self.servers:
            for listening in server.sockets[:1]:
                host, port = listening.getsockname()[:2]
                models = ", ".join(model.name for model in self.config.app.state.models)  # type: ignore[union-attr]
                host = LOOPBACK.get(host, host)
                url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
                logger.info("serving %s", models)
                logger.info("look at %s in a browser; try: curl %s/models; documentation: %s/docs", url, url, url)

    def _reload(self) -> None:
        """Load the checkpoints again, after a signal."""
        reloader: Reloader = self.config.app.state.reloader  # type: ignore[union-attr]
        begin(reloader.reload(), self._reloads).add_done_callback(self._note_reload)

    def _note_reload(self, task: "asyncio.Task[Reloaded]") -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            unexpected = None if isinstance(error, EngramError) else error
            logger.error("the checkpoints were not loaded again: %s", error, exc_info=unexpected)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        state: State = self.config.app.state  # type: ignore[union-attr]
        if state.settings.drain_seconds > 0 or state.sessions.are_shared:
            await self._drain(state)
        draining = asyncio.create_task(close(state))
        await super().shutdown(sockets)
        if self.force_exit:
            for model in state.models.all:
                model.engine.give_up()
        await draining
        if self._profiler is not None:
            self._profiler.stop()

    async def _drain(self, state: State) -> None:
        """Serve for `drain_seconds` more, not ready, then hand the sessions over, and finish the HTTP requests in work.

        A second signal ends it.
        """
        state.draining = True
        logger.info("draining for %g s", state.settings.drain_seconds)
        await self._wait(state.settings.drain_seconds, lambda: False)
        leaving = asyncio.create_task(state.sessions.handover.leave())
        await self._wait(state.settings.shutdown_timeout, lambda: leaving.done() and not self._is_at_work())

    async def _wait(self, seconds: float, is_done: Callable[[], bool]) -> None:
        end = time.monotonic() + seconds
        while not (self.force_exit or is_done() or time.monotonic() > end):  # noqa: ASYNC110
            await asyncio.sleep(DRAIN_TICK)

    def _is_at_work(self) -> bool:
        return any(isinstance(each, HttpProtocol) and each.is_at_work for each in self.server_state.connections)


def _spare_the_collector() -> None:
    """Freeze long-lived objects, and raise the collector's thresholds."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECTED_AFTER, 20, 20)


def check_address(settings: Settings, keyring: Keyring) -> None:
    """Raise SettingsError for an address that other machines may reach, if there are no keys."""
    if keyring.required or is_local(settings.host):
        return
    if not settings.insecure:
        raise SettingsError(
            f"setting host: there are no keys, so the server listens on this machine only, on 127.0.0.1, ::1 or "
            f"localhost, got {settings.host!r}: make a key with {keys_command(settings)}, or name a file with one "
            "by key_file, or let everyone who reaches the server use it with --insecure"
        )
    logger.warning(
        "listening on %s: everyone who reaches this address can use the server, which has no keys", settings.host
    )
