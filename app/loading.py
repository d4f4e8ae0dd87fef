"""Load checkpoints as served models, and open the stores: the only file that names back ends and stores."""

import ctypes
import dataclasses
import logging
import math
import os
import shlex
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from app.access.key_file import KeyFile
from app.access.keyring import Keyring
from app.backends.base import NUMBER_BYTES, Backend, check_backend
from app.budget import Budgets, budgets_of
from app.catalogue import (
    LoadedModel,
    MemorySizes,
    ModelCatalogue,
    ServedModel,
    fingerprint_of,
    input_format,
    least_memory,
    output_groups,
)
from app.engine.arenas import Arenas
from app.engine.engine import Engine
from app.engine.worker import Journal
from app.errors import InvalidRequest
from app.metrics import Metrics
from app.samples import read_sample
from app.settings import Settings, SettingsError, kind_of
from app.stores.base import Retention, Store
from app.stores.keys import KeyStore
from app.stores.memory import MemoryStore
from app.stores.ownership import Alone, Ownership
from app.stores.sqlite import SqliteKeyStore, SqliteStore
from kernels.gpu.support import not_on_gpu, why_copied, why_no_triton
from kernels.library import library, why_no_library
from kernels.support import KINDS, not_fused
from models.manifest import GRAPH_KIND, MANIFEST_FILE, ONNX_FILE, Manifest, ManifestError, read_manifest

logger = logging.getLogger(__name__)

USUAL_BATCH = {"cpu": 64, "cuda": 4096}
"""Sessions of a batch, at most, where the setting does not say."""

CUDA_DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"

PROBE_SLOTS = 1
"""Slots of an arena that are kept for /readyz, beyond those of sessions and sequences."""


def open_store(settings: Settings, metrics: Metrics) -> tuple[Store, Ownership]:
    """Return the store, and what the server's right to its sessions is. Raises StoreFailed, SettingsError."""
    retention, kind = Retention(settings.keep_steps, settings.keep_seconds), kind_of(settings.store)
    if kind == "postgres":
        return _open_shared(settings, retention, metrics)
    return MemoryStore(retention) if kind == "memory" else SqliteStore(settings.data, retention), Alone()


def _open_shared(settings: Settings, retention: Retention, metrics: Metrics) -> tuple[Store, Ownership]:
    """Return the store that several servers share, and a lease. Raises as `open_store` does."""
    require_postgres()
    from app.stores.postgres import Database, PostgresStore, ServerLease

    url, name = settings.store_url, server_name(settings)
    store = PostgresStore(url, retention, lambda: (lease.owner,), name, metrics)
    place = f"{settings.host}:{settings.port}"
    lease = ServerLease(Database(url, f"engram lease of {name}"), settings.lease, name, place, store.interrupt)
    metrics.watch_lease(lambda: lease.left)
    return store, lease


def open_keys(settings: Settings) -> KeyStore:
    """Return the store of keys: that of the database that servers share, else that of the data directory."""
    if kind_of(settings.store) != "postgres":
        return SqliteKeyStore(settings.data)
    require_postgres()
    from app.stores.postgres import PostgresKeyStore

    return PostgresKeyStore(settings.store_url)


def require_postgres() -> None:
    """Raise SettingsError where the package of the store in PostgreSQL cannot be imported, with what installs it."""
    try:
        import psycopg  # noqa: F401
    except ImportError as error:  # of psycopg, or of the library of PostgreSQL
        raise SettingsError(
            f"setting store: a database needs psycopg, which cannot be imported ({error}): in the checkout of Engram, "
            "pip install -c constraints.txt -e '.[postgres]'"
        ) from error


def server_name(settings: Settings) -> str:
    """Return the name of a server among those that share a database."""
    return settings.server_name or socket.gethostname()


def keys_command(settings: Settings) -> str:
    """Return the command that creates a key for a server with these settings."""
    is_shared = kind_of(settings.store) == "postgres"
    where = ("--store", settings.store) if is_shared else ("--data", str(settings.data))
    return shlex.join(["engram", "keys", "create", *where])


def open_keyring(settings: Settings) -> Keyring:
    """Return the keys that are valid now. Raises StoreFailed where they cannot be read."""
    return Keyring(open_keys(settings), None if settings.key_file is None else KeyFile(settings.key_file))


def load_models(settings: Settings, metrics: Metrics, journal: Journal, budgets: Budgets) -> ModelCatalogue:
    """Load every checkpoint; log those that cannot be loaded, and serve the others.

    Raises SettingsError if none can be served, or a setting names a model that is not there.
    """
    device = device_of(settings)
    models, failures = {}, dict[str, str]()
    for directory in checkpoints_in(settings):
        try:
            models[directory.name] = _load_model(directory, settings, device, metrics, journal, budgets)
        except (ManifestError, UnicodeEncodeError, MemoryError) as error:
            _note_failure(failures, directory, error)
    _check_any(models, failures, settings)
    for setting, by_name in (("memory_size", settings.memory_size), ("snapshots", settings.snapshots)):
        for name in by_name:
            if name not in models and name not in failures:
                raise SettingsError(
                    f"setting {setting}: there is no model {name!r}; expected one of {', '.join(models)}"
                )
    return ModelCatalogue(models, failures)


def load_again(
    settings: Settings,
    metrics: Metrics,
    journal: Journal,
    budgets: Budgets,
    offered: Mapping[str, ServedModel],
    retired: Sequence[ServedModel],
) -> tuple[dict[str, ServedModel], dict[str, str]]:
    """Return the models that the checkpoints are now, and why others could not be loaded; called on any thread.

    offered, retired: the versions that run. One that is in the checkpoints is returned as it is, and so is the one on
    offer of a checkpoint that cannot be loaded any more. The engines of the others are to be started. Raises
    SettingsError if nothing can be served.
    """
    device = device_of(settings)
    models, failures = {}, dict[str, str]()
    running = {(model.name, model.fingerprint): model for model in (*offered.values(), *retired)}
    for directory in checkpoints_in(settings):
        name = directory.name
        try:
            name.encode()
            version = fingerprint_of(read_manifest(directory))
            models[name] = running.get((name, version)) or _load_model(
                directory, settings, device, metrics, journal, budgets
            )
        except (ManifestError, UnicodeEncodeError, SettingsError, MemoryError) as error:
            _note_failure(failures, directory, error)
            if name in offered:
                models[name] = offered[name]
    _check_any(models, failures, settings)
    return models, failures


def checkpoints_in(settings: Settings) -> list[Path]:
    """Return the directories that are to be checkpoints, in order. Raises SettingsError."""
    if not settings.checkpoints.is_dir():
        raise SettingsError(f"checkpoints: no directory {settings.checkpoints}")
    try:
        found = sorted(settings.checkpoints.iterdir())
    except OSError as error:
        raise SettingsError(f"checkpoints: {settings.checkpoints} cannot be read: {error.strerror}") from error
    data = os.path.realpath(settings.data)
    return [
        path
        for path in found
        if not path.is_file() and not path.name.startswith(".") and os.path.realpath(path) != data
    ]


def _note_failure(failures: dict[str, str], directory: Path, error: Exception) -> None:
    shown = directory.name.encode(errors="backslashreplace").decode()
    failures[shown] = str(error) or type(error).__name__
    logger.error("%s is not served: %s", shown, failures[shown])


def _check_any(models: Mapping[str, ServedModel], failures: Mapping[str, str], settings: Settings) -> None:
    """Raise SettingsError if there are no models."""
    if models:
        return
    if (settings.checkpoints / MANIFEST_FILE).exists():
        above = shlex.quote(str(settings.checkpoints.resolve().parent))
        raise SettingsError(
            f"checkpoints: {settings.checkpoints} is a checkpoint itself: give the directory that it is in, "
            f"--checkpoints {above}"
        )
    reasons = "; ".join(failures.values()) or "it has no subdirectory with a manifest.json"
    raise SettingsError(f"checkpoints: nothing in {settings.checkpoints} can be served: {reasons}")


def _load_model(
    directory: Path, settings: Settings, device: str, metrics: Metrics, journal: Journal, budgets: Budgets
) -> ServedModel:
    """Load one checkpoint to serve. Raises as `load_checkpoint` does."""
    model, backend = load_checkpoint(directory, settings, device, budgets)
    arenas = Arenas(backend, budgets.states)
    engine = Engine(
        model.name,
        arenas,
        settings.max_batch or USUAL_BATCH[backend.device],
        settings.max_queue,
        metrics.engine(model.name),
        journal,
        settings.step_timeout,
        budgets.queue,
        settings.linger,
    )
    described = {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}
    return ServedModel(**described, max_trace_bytes=settings.max_trace_bytes, engine=engine)


def load_checkpoint(directory: Path, settings: Settings, device: str, budgets: Budgets) -> tuple[LoadedModel, Backend]:
    """Load one checkpoint, with the memory size and the back end of the settings.

    device: that of `device_of`. Raises ManifestError if the checkpoint cannot be stepped, SettingsError if a setting
    does not fit it.
    """
    if directory.is_symlink() and not directory.exists():
        raise ManifestError(
            f"{directory}: a symbolic link to {directory.readlink()}, which does not exist: remove the link, or mend it"
        )
    name, manifest = directory.name, read_manifest(directory)
    name.encode()  # it stands in answers
    _check_sizes(manifest, budgets)
    inputs, groups, least = input_format(manifest), output_groups(manifest), least_memory(manifest)
    sample = read_sample(directory, manifest)
    trained = _checked_backend(directory, manifest, settings, device)
    memory = MemorySizes(name, trained.spec, least, min(settings.max_state_bytes, budgets.states.limit))
    backend = _resized(trained, memory, settings.memory_size.get(name))
    model = LoadedModel(
        name=name,
        manifest=manifest,
        inputs=inputs,
        output_groups=groups,
        spec=backend.spec,
        memory=memory,
        backend=backend.kind,
        device=backend.device,
        sample=sample,
    )
    return model, backend


def _check_sizes(manifest: Manifest, budgets: Budgets) -> None:
    """Raise ManifestError for a model whose state, or whose numbers of a single step, no budget has room for."""
    numbers = manifest.input_size + manifest.output_size + sum(map(math.prod, manifest.trace.values()))
    for what, size, budget in (
        ("state", NUMBER_BYTES * sum(map(math.prod, manifest.state.values())), budgets.states),
        ("inputs, outputs and traces of a step", NUMBER_BYTES * numbers, budgets.queue),
    ):
        if size > budget.limit:
            raise ManifestError(
                f"its {what} would take {size} bytes, but there are {budget.limit} for those of all clients (setting "
                f"{budget.setting}): give it more, or remove the model"
            )


def _resized(backend: Backend, memory: MemorySizes, memory_size: int | None) -> Backend:
    """Return the back end with the memory size of the settings, if they name one. Raises SettingsError."""
    try:
        memory.check(memory_size)
    except InvalidRequest as error:
        raise SettingsError(f"setting {error}") from error
    return backend if memory_size is None else backend.resized(memory_size)


def _checked_backend(directory: Path, manifest: Manifest, settings: Settings, device: str) -> Backend:
    """Return a back end that has taken a step. Raises as `load_checkpoint` does.

    Where the fused kernels were not asked for and cannot take one on a GPU, as without a C compiler, torch does.
    """
    backend = _load_backend(directory, manifest, settings, device)
    try:
        check_backend(backend)
    except ManifestError as error:
        if settings.backend != "auto" or (backend.kind, backend.device) != ("fused", "cuda"):
            raise
        logger.warning("%s: its steps are computed by torch: %s", directory.name, error)
        backend = _load_backend(directory, manifest, settings.model_copy(update={"backend": "torch"}), device)
        check_backend(backend)
    return backend


def _load_backend(directory: Path, manifest: Manifest, settings: Settings, device: str) -> Backend:
    capacity = settings.max_resident + settings.max_queue + PROBE_SLOTS
    kind = _best_backend(directory, manifest, device) if settings.backend == "auto" else settings.backend
    if manifest.kind == GRAPH_KIND and kind != "onnx":
        raise ManifestError(
            f"{directory}: an imported graph is computed by the back end onnx alone, not by {kind}: use --backend auto"
        )
    if kind == "onnx":
        from app.backends.onnx import OnnxBackend

        return OnnxBackend(directory, capacity, settings.threads)
    if kind == "fused" and device == "cpu":
        from app.backends.fused import FusedBackend

        return FusedBackend(directory, capacity, settings.threads)
    if manifest.kind not in KINDS:
        raise ManifestError(_without_class(directory, manifest))
    try:
        if kind == "fused":
            from app.backends.cuda import CudaBackend

            return CudaBackend(directory, capacity, device, settings.state_dtype)
        from app.backends.torch import TorchBackend
    except ModuleNotFoundError as error:
        what = f"{kind} back end on {device}" if kind == "fused" else "torch back end"
        raise ManifestError(
            f"{directory}: the {what} needs {error.name}: in the checkout of Engram, pip install -c constraints.txt "
            "-e '.[torch]'"
        ) from error
    return TorchBackend(directory, capacity, device, settings.threads)


def _best_backend(directory: Path, manifest: Manifest, device: str) -> Literal["fused", "onnx", "torch"]:
    """Return the fastest back end for a checkpoint's steps, and log why if it is not the fused one.

    Raises ManifestError for a model of a user's own class that has no graph.
    """
    if manifest.kind == GRAPH_KIND:
        if device != "cpu":
            logger.info("%s: its steps are computed on the CPU, as those of all imported graphs", directory.name)
        return "onnx"
    exported, of_ours = (directory / ONNX_FILE).exists(), manifest.kind in KINDS
    if not exported and not of_ours:
        raise ManifestError(_without_class(directory, manifest))
    if device != "cpu" and of_ours:
        reason = not_on_gpu(manifest.kind, manifest.config) or why_no_triton() or why_copied(manifest.config)
        if reason is None:
            return "fused"
        logger.info("%s: its steps are computed by torch: %s", directory.name, reason)
        return "torch"
    if not exported:
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


def _without_class(directory: Path, manifest: Manifest) -> str:
    """Return the message for a model of a user's own class, which a server does not have."""
    export = shlex.join(["engram", "export", "--models", "FILE", str(directory)])
    return (
        f"{directory}: its model is of kind {manifest.kind!r}, whose class a server does not have: it is served by its "
        f"graph, {ONNX_FILE}, with --backend auto or onnx; {export} writes it, FILE being that of the class"
    )


def device_of(settings: Settings) -> str:
    """Return the device of the steps: cpu or cuda. Raises SettingsError."""
    device = _device_of(settings)
    if settings.state_dtype != "float32" and (device == "cpu" or settings.backend == "torch"):
        place = "the CPU" if device == "cpu" else "the torch back end"
        raise SettingsError(
            f"state_dtype {settings.state_dtype}: states in it are for the fused kernels of a GPU, but {place} "
            "computes the steps; use float32"
        )
    return device


def _device_of(settings: Settings) -> str:
    on_cpu = settings.backend == "onnx"
    if settings.device == "cpu" or (settings.device == "auto" and on_cpu):
        return "cpu"
    if settings.device == "cuda" and on_cpu:
        raise SettingsError("device cuda: the onnx back end runs on the CPU; use --backend fused, torch, or auto")
    available = _cuda_available()
    if settings.device == "cuda" and not available:
        raise SettingsError("device cuda: torch is not installed or sees no CUDA device; use --device cpu, or auto")
    return "cuda" if available else "cpu"


def server_budgets(settings: Settings) -> Budgets:
    """Return the budgets of a server with these settings on this machine. Raises SettingsError."""
    if device_of(settings) == "cpu":
        return budgets_of(settings)
    import torch

    free, _ = torch.cuda.mem_get_info()
    return budgets_of(settings, gpu=free)


def _cuda_available() -> bool:
    if not _has_cuda_driver():
        return False
    try:
        import torch
    except ModuleNotFoundError:
        return False
    return torch.cuda.is_available()


def _has_cuda_driver() -> bool:
    """Return whether the CUDA driver is installed, a quick check before the slow import of torch."""
    try:
        ctypes.CDLL(CUDA_DRIVER)
    except OSError:
        return False
    return True
