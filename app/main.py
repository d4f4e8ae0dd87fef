"""Put the server together: the only file that names concrete back ends and stores."""

import asyncio
import contextlib
import ctypes
import gc
import ipaddress
import logging
import math
import os
import shlex
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Literal

import uvicorn
from fastapi import FastAPI
from starlette.datastructures import State
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import routes, stream
from app.api.at_once import AnswerAtOnce
from app.api.decoders import Decoders
from app.api.hot import HotPaths
from app.api.methods import AnswerHead
from app.api.openapi import DocumentedApp
from app.api.pages import add_pages
from app.api.problems import add_problem_handlers
from app.backends.base import Backend, check_backend
from app.catalogue import ModelCatalogue, ServedModel, input_format, output_groups
from app.engine.arenas import Arenas
from app.engine.engine import Engine
from app.engine.worker import Journal
from app.errors import InvalidRequest
from app.files import watch_files
from app.memory import MemorySizes, least_memory
from app.metrics import Metrics
from app.profiling import Profiler
from app.protocols.http import answering
from app.protocols.websocket import WebSocketProtocol
from app.sessions.clock import Clock
from app.sessions.service import Limits, SessionService
from app.settings import Settings, SettingsError
from app.stores.base import Retention, Store, Upkeep
from app.stores.memory import MemoryStore
from app.stores.sqlite import SqliteStore
from app.stores.writer import Writer
from kernels.library import library, why_no_library
from kernels.support import not_fused
from models.manifest import MANIFEST_FILE, ONNX_FILE, Manifest, ManifestError, read_manifest

logger = logging.getLogger(__name__)

# Where a server that listens on every address is looked at from here
LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104

CUDA_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"

COLLECTED_AFTER = 50_000
"""New objects after which Python looks for garbage in cycles: far fewer are made in a tick than live in a server."""

ANSWER_SECONDS = 2
"""How long, after the engines have given up, their last answers have to leave."""

LAST_COMMIT_SECONDS = 0.5
"""How long the store has at least to write what is left when the server stops."""

PROBE_SLOTS = 1
"""Slots of the arena beyond those of sessions and sequences: for /readyz."""


def create_app(settings: Settings) -> FastAPI:
    """Return the application: models loaded, nothing running yet.

    Raises SettingsError where nothing can be served with these settings, StoreFailed where the data directory cannot
    be used.
    """
    metrics = Metrics()
    store = _open_store(settings)
    writer = Writer(
        store, metrics, settings.durability, settings.commit_interval, settings.sync_interval, settings.step_timeout
    )
    models = _load_models(settings, metrics, writer)
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
    app.state.decoders, app.state.closing = Decoders(), None
    app.state.sessions = SessionService(
        models,
        writer,
        metrics,
        Limits(settings.max_sessions, settings.max_resident, settings.max_queue, settings.idle_timeout),
        Clock(store.latest_time()),
        store.counts(),
        settings.durability,
        settings.snapshots,
    )
    app.include_router(routes.router)
    app.include_router(stream.router)
    add_pages(app)
    add_problem_handlers(app)
    app.add_middleware(AnswerHead)
    app.add_middleware(HotPaths, routes=routes.router.routes)
    app.add_middleware(MeasureRequests, metrics=metrics)
    return app


def serve(settings: Settings) -> int:
    """Serve until a stop signal, and return the exit status."""
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if not _is_local(settings.host):
        logger.warning("listening on %s: anyone who reaches it can use it, for there are no keys", settings.host)
    profiler = None if settings.profile is None else Profiler(settings.profile)
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        log_level="warning" if settings.log_level == "info" else settings.log_level,
        access_log=settings.access_log,
        http=answering(AnswerAtOnce(app.state.models, app.state.sessions, settings, app.state.metrics)),
        ws=WebSocketProtocol,
        ws_max_size=2 * settings.max_body_bytes,
        timeout_graceful_shutdown=math.ceil(settings.shutdown_timeout) + ANSWER_SECONDS,
        lifespan="on",
    )
    server = _Server(config, profiler)
    try:
        server.run()
    except SystemExit:  # uvicorn's way to say that it could not start; its log says why
        return 1
    return 0


class _Server(uvicorn.Server):
    """Says where it is and what to try once it listens, and lets the engines finish while connections are drained."""

    def __init__(self, config: uvicorn.Config, profiler: Profiler | None) -> None:
        super().__init__(config)
        self._profiler = profiler

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        _spare_the_collector()
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

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        state: State = self.config.app.state  # type: ignore[union-attr]
        draining = asyncio.create_task(_close(state))
        await super().shutdown(sockets)
        if self.force_exit:
            for model in state.models:
                model.engine.give_up()
        await draining
        if self._profiler is not None:
            self._profiler.stop()


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    models: ModelCatalogue = app.state.models
    app.state.writer.start()
    for model in models:
        model.engine.start()
    kept = [asyncio.create_task(work) for work in (app.state.sessions.ending.keep_expiring(), watch_files())]
    try:
        yield
    finally:
        for task in kept:
            task.cancel()
        await _close(app.state)
        await asyncio.to_thread(app.state.decoders.close)


async def _close(state: State) -> None:
    """Stop once, whoever asks; a second call waits for the first."""
    if state.closing is None:
        state.closing = asyncio.ensure_future(_stop(state))
    await asyncio.shield(state.closing)


async def _stop(state: State) -> None:
    """Finish what was accepted, keep the sessions, stop: for as long as the settings allow.

    Sessions first, for which the engines are still needed; then the engines, whose last steps are still written.
    """
    end = time.monotonic() + state.settings.shutdown_timeout
    await state.sessions.close(state.settings.shutdown_timeout)
    await asyncio.gather(*(model.engine.close(max(0.0, end - time.monotonic())) for model in state.models))
    await state.writer.close(max(LAST_COMMIT_SECONDS, end - time.monotonic()))


def _spare_the_collector() -> None:
    """Let Python look for garbage seldom, and not among what lives as long as the server."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECTED_AFTER, 20, 20)


def _open_store(settings: Settings) -> Store:
    retention = Retention(settings.keep_steps, settings.keep_seconds)
    return MemoryStore(retention) if settings.store == "memory" else SqliteStore(settings.data, retention)


def open_data(directory: Path) -> Upkeep:
    """Return the store in a data directory as a server left it. Raises StoreFailed where there is none."""
    return SqliteStore(directory, opens=False)


def _load_models(settings: Settings, metrics: Metrics, journal: Journal) -> ModelCatalogue:
    """Load every checkpoint; those that cannot be are told in the log, and the others are served."""
    if not settings.checkpoints.is_dir():
        raise SettingsError(f"checkpoints: no directory {settings.checkpoints}")
    device = _device(settings)
    models, failures = {}, {}
    for directory in sorted(settings.checkpoints.iterdir()):
        is_data = os.path.realpath(directory) == os.path.realpath(settings.data)
        if directory.is_file() or directory.name.startswith(".") or is_data:
            continue
        name = directory.name
        try:
            name.encode()
            models[name] = _load_model(directory, settings, device, metrics, journal)
        except (ManifestError, UnicodeEncodeError) as error:
            shown = name.encode(errors="backslashreplace").decode()
            failures[shown] = str(error)
            logger.error("%s is not served: %s", shown, error)
    if not models and (settings.checkpoints / MANIFEST_FILE).exists():
        above = shlex.quote(str(settings.checkpoints.resolve().parent))
        raise SettingsError(
            f"checkpoints: {settings.checkpoints} is a checkpoint itself: give the directory that it is in, "
            f"--checkpoints {above}"
        )
    if not models:
        reasons = "; ".join(failures.values()) or "it has no subdirectory with a manifest.json"
        raise SettingsError(f"checkpoints: nothing in {settings.checkpoints} can be served: {reasons}")
    for setting, by_name in (("memory_size", settings.memory_size), ("snapshots", settings.snapshots)):
        for name in by_name:
            if name not in models and name not in failures:
                raise SettingsError(
                    f"setting {setting}: there is no model {name!r}; expected one of {', '.join(models)}"
                )
    return ModelCatalogue(models, failures)


def _load_model(directory: Path, settings: Settings, device: str, metrics: Metrics, journal: Journal) -> ServedModel:
    """Raises ManifestError where the checkpoint cannot be served, SettingsError where a setting does not fit it."""
    if directory.is_symlink() and not directory.exists():
        raise ManifestError(f"{directory}: a symbolic link to {directory.readlink()}, where there is nothing: mend it")
    name, manifest = directory.name, read_manifest(directory)
    inputs, groups, least = input_format(manifest), output_groups(manifest), least_memory(manifest)
    trained = _load_backend(directory, manifest, settings, device)
    check_backend(trained)
    memory = MemorySizes(name, trained.spec, least, min(settings.max_state_bytes, settings.max_memory_bytes))
    backend = _resized(trained, memory, settings.memory_size.get(name))
    arenas = Arenas(backend, settings.max_memory_bytes)
    return ServedModel(
        name=name,
        manifest=manifest,
        inputs=inputs,
        output_groups=groups,
        spec=backend.spec,
        memory=memory,
        max_trace_bytes=settings.max_trace_bytes,
        engine=Engine(
            name,
            arenas,
            settings.max_batch,
            settings.max_queue,
            metrics.engine(name),
            journal,
            settings.step_timeout,
            settings.max_queue_bytes,
            settings.linger,
        ),
        backend=backend.kind,
        device=backend.device,
    )


def _resized(backend: Backend, memory: MemorySizes, memory_size: int | None) -> Backend:
    """Return the back end with the memory size that the settings give its model, if they do."""
    try:
        memory.check(memory_size)
    except InvalidRequest as error:
        raise SettingsError(f"setting {error}") from error
    return backend if memory_size is None else backend.resized(memory_size)


def _load_backend(directory: Path, manifest: Manifest, settings: Settings, device: str) -> Backend:
    capacity = settings.max_resident + settings.max_queue + PROBE_SLOTS
    kind = _best_backend(directory, manifest, device) if settings.backend == "auto" else settings.backend
    if kind == "onnx":
        from app.backends.onnx import OnnxBackend

        return OnnxBackend(directory, capacity, settings.threads)
    if kind == "fused":
        from app.backends.fused import FusedBackend

        return FusedBackend(directory, capacity, settings.threads)
    try:
        from app.backends.torch import TorchBackend
    except ModuleNotFoundError as error:
        raise ManifestError(
            f"{directory}: the torch back end needs torch: in the checkout of Engram, pip install -c constraints.txt "
            "-e '.[torch]'"
        ) from error
    return TorchBackend(directory, capacity, device, settings.threads)


def _best_backend(directory: Path, manifest: Manifest, device: str) -> Literal["fused", "onnx", "torch"]:
    """Return the fastest back end that can compute a checkpoint's steps, with a line in the log if it is not fused."""
    if device != "cpu":
        return "torch"
    if not (directory / ONNX_FILE).exists():
        logger.warning(
            "%s: its steps are left to torch, for there is no %s, which the fused kernels and ONNX Runtime need; "
            "make it with: engram export %s",
            directory.name,
            ONNX_FILE,
            shlex.quote(str(directory)),
        )
        return "torch"
    reason = not_fused(manifest.kind, manifest.config)
    if reason is None and library() is not None:
        return "fused"
    logger.info("%s: its steps are computed by ONNX Runtime: %s", directory.name, reason or why_no_library())
    return "onnx"


def _device(settings: Settings) -> str:
    """Return where the steps are computed: cpu or cuda."""
    on_cpu = settings.backend in ("fused", "onnx")
    if settings.device == "cpu" or (settings.device == "auto" and on_cpu):
        return "cpu"
    if settings.device == "cuda" and on_cpu:
        raise SettingsError(
            f"device cuda: the {settings.backend} back end runs on the CPU; use --backend torch, or auto"
        )
    available = _cuda_available()
    if settings.device == "cuda" and not available:
        raise SettingsError("device cuda: torch is not installed or sees no CUDA device; use --device cpu, or auto")
    return "cuda" if available else "cpu"


def _cuda_available() -> bool:
    if not _has_cuda_driver():
        return False
    try:
        import torch
    except ModuleNotFoundError:
        return False
    return torch.cuda.is_available()


def _has_cuda_driver() -> bool:
    """Return whether there can be a CUDA device at all: importing torch to learn that there is none takes long."""
    try:
        ctypes.CDLL(CUDA_DRIVER)
    except OSError:
        return False
    return True


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class MeasureRequests:
    """Count HTTP requests by route and status, and time them."""

    def __init__(self, app: ASGIApp, metrics: Metrics, clock: Callable[[], float] = time.perf_counter) -> None:
        self._app = app
        self._metrics = metrics
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = self._clock(), 500

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note_status)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.request(scope["method"], route, status, self._clock() - began)
