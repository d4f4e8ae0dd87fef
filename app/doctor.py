"""Find what is wrong with an installation, and the command that mends it: a function for each part that is looked at.

Nothing is changed, and a server that runs is not disturbed.
"""

import errno
import logging
import os
import platform
import re
import shlex
import shutil
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from app.access.hosts import is_local
from app.engine.worker import NoJournal
from app.errors import StoreFailed
from app.loading import keys_command, load_models, open_keyring, require_postgres, server_budgets
from app.memory import memory_limit
from app.metrics import Metrics
from app.settings import Settings, SettingsError, kind_of
from app.stores.sqlite import FILE, KEYS_FILE
from app.stores.sqlite.database import is_in_use
from app.stores.sqlite.schema import SCHEMA_VERSION
from kernels.build import variants
from kernels.library import COMMAND, library, why_no_library

if TYPE_CHECKING:
    from app.stores.postgres.database import Database

LEAST_FILES = 1024
"""Files that a server should be able to open: each connection is one."""

LEAST_MEMORY = 512 * 2**20
LEAST_SPACE = 256 * 2**20

HARM = {
    "fsync": "a power cut can destroy all of it",
    "full_page_writes": "a power cut can damage it",
    "synchronous_commit": "steps that were answered can be lost",
}
"""The harm of a setting of a database that is off."""

FREE_CONNECTIONS = 10
"""Connections that a database should be able to take beside those that are open; each server has 3."""

DAY = 86400

BOUND = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?>=([0-9.]+)$")
"""A dependency with its lower bound, as the metadata of a package has it."""

USER_VERSION = slice(60, 64)
"""The schema's version in the first page of a SQLite file, big-endian."""


@dataclass(frozen=True)
class Finding:
    """A part as it was seen; remedy: the command that mends it where something is wrong, else None."""

    part: str
    message: str
    remedy: str | None = None

    @property
    def is_wrong(self) -> bool:
        return self.remedy is not None


Check = Callable[[Settings], Iterator[Finding]]


def examine(settings: Settings) -> Iterator[Finding]:
    """Yield what is found of each part of an installation, with the settings that its server is to have.

    A part that cannot be examined is a finding too, and the others are examined all the same.
    """
    for check in CHECKS:
        try:
            yield from check(settings)
        except (OSError, ValueError) as error:
            yield Finding(check.__name__.strip("_"), f"it cannot be examined: {error}", "engram serve --help")


def wrong_settings(error: SettingsError) -> Finding:
    """Return the finding of settings that cannot be used."""
    return Finding("settings", str(error), "engram serve --help")


def _python(_: Settings) -> Iterator[Finding]:
    found, least = sys.version_info[:2], (3, 11)
    message = f"Python {platform.python_version()} at {sys.executable}"
    if found < least:
        yield Finding("python", f"{message}; Engram needs 3.11 or later", "PYTHON=python3.11 scripts/serve")
    else:
        yield Finding("python", message)


def _packages(_: Settings) -> Iterator[Finding]:
    install = f"{shlex.quote(sys.executable)} -m pip install -c constraints.txt -e ."
    try:
        required = metadata.requires("engram") or []
    except metadata.PackageNotFoundError:
        yield Finding("packages", "Engram is not installed in this Python", install)
        return
    faults = [fault for word in required if (fault := _fault_of(word)) is not None]
    yield from (Finding("packages", fault, install) for fault in faults)
    if not faults:
        yield Finding("packages", "all that Engram needs are there, and recent enough")


def _fault_of(requirement: str) -> str | None:
    """Return what is wrong with a package that is needed, or None; those of extras are not needed."""
    wanted, _, condition = requirement.partition(";")
    bound = BOUND.match(wanted.strip())
    if "extra ==" in condition or bound is None:
        return None
    name, least = bound.groups()
    try:
        found = metadata.version(name)
    except metadata.PackageNotFoundError:
        return f"{name} is not installed; {least} or later is needed"
    return None if _numbers(found) >= _numbers(least) else f"{name} is {found}; {least} or later is needed"


def _numbers(version: str) -> tuple[int, ...]:
    """Return the numbers at the beginning of a version, without zeros at the end."""
    found = re.match(r"[0-9]+(?:\.[0-9]+)*", version)
    numbers = [int(part) for part in found[0].split(".")] if found else [0]
    while numbers and not numbers[-1]:
        del numbers[-1]
    return tuple(numbers)


def _kernels(_: Settings) -> Iterator[Finding]:
    found = library()
    if found is not None:
        yield Finding("kernels", f"built and fitting: {found.path.name}")
    elif not variants():
        yield Finding(
            "kernels", f"there are none for this machine, {platform.machine()}: ONNX Runtime computes instead"
        )
    else:
        yield Finding(
            "kernels", f"not used, so steps are slower: {why_no_library()}", f"pip install ziglang && {COMMAND}"
        )


def _checkpoints(settings: Settings) -> Iterator[Finding]:
    logging.disable(logging.CRITICAL)  # what is logged is in the findings
    try:
        models = load_models(settings, Metrics(), NoJournal(), server_budgets(settings))
    except SettingsError as error:
        yield Finding("checkpoints", str(error), "engram serve --checkpoints DIRECTORY")
        return
    finally:
        logging.disable(logging.NOTSET)
    served = ", ".join(f"{model.name} ({model.backend}, {model.device})" for model in models)
    yield Finding("checkpoints", f"{settings.checkpoints}: {served}")
    for name, reason in models.failures.items():
        paths = [settings.checkpoints / name, settings.checkpoints / f".{name}"]
        yield Finding("checkpoints", f"{name} is not served: {reason}", shlex.join(["mv", *map(str, paths)]))


def _data(settings: Settings) -> Iterator[Finding]:
    kind = kind_of(settings.store)
    if kind == "memory":
        yield Finding("data", "sessions are kept in memory only (setting store)")
    elif kind == "postgres":
        yield from _shared(settings)
    else:
        yield from _directory(settings)


def _directory(settings: Settings) -> Iterator[Finding]:
    """Yield what is found of the data directory."""
    directory = settings.data
    while not directory.exists() and directory != directory.parent:
        directory = directory.parent
    shown = shlex.quote(str(directory))
    if not directory.is_dir():
        yield Finding("data", f"{directory} is no directory", "engram serve --data DIRECTORY")
        return
    if not os.access(directory, os.W_OK | os.X_OK):
        owner = f"chown -R {os.getuid()} {shown}" if hasattr(os, "getuid") else "engram serve --data DIRECTORY"
        yield Finding("data", f"{directory} cannot be written to by this user", owner)
    free = shutil.disk_usage(directory).free
    if free < LEAST_SPACE:
        yield Finding("data", f"{directory}: {_megabytes(free)} are free on its disk", f"du -sh {shown}; df -h {shown}")
    if not settings.data.exists():
        yield Finding("data", f"{settings.data} is not there yet: the server makes it")
        return
    yield from _database(settings.data / FILE)


def _database(path: Path) -> Iterator[Finding]:
    """Yield what is found of the file of sessions."""
    if not path.exists():
        yield Finding("data", f"{path.parent}: no sessions yet")
        return
    try:
        head = _beginning(path, 100)
    except OSError as error:
        yield Finding("data", f"{path}: {error.strerror}", shlex.join(["ls", "-l", str(path.parent)]))
        return
    schema = int.from_bytes(head[USER_VERSION], "big")
    if head and not head.startswith(b"SQLite format 3\0"):
        yield Finding("data", f"{path} is no SQLite file", shlex.join(["engram", "check", "--data", str(path.parent)]))
    elif schema > SCHEMA_VERSION:
        yield Finding(
            "data",
            f"{path}: schema {schema} is newer than this version's, {SCHEMA_VERSION}",
            "git pull && scripts/serve",
        )
    elif is_in_use(path):
        yield Finding("data", f"{path}: a server uses it")
    else:
        yield Finding("data", f"{path}: schema {schema}, and no server uses it")


def _beginning(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        return file.read(size)


def _shared(settings: Settings) -> Iterator[Finding]:
    """Yield what is found of the database that servers share."""
    try:
        require_postgres()
    except SettingsError as error:
        yield Finding("data", str(error), "pip install -c constraints.txt -e '.[postgres]'")
        return
    from app.stores.postgres.database import Database

    try:
        with closing(Database(settings.store_url, "engram doctor")) as database:
            yield from _facts(settings, database)
            yield from _schema(settings, database)
    except (SettingsError, StoreFailed) as error:
        yield Finding("data", str(error), shlex.join(["psql", settings.store]))


def _facts(settings: Settings, database: "Database") -> Iterator[Finding]:
    """Yield what is found of the settings of a database: those on which it depends what survives a power cut."""
    from app.stores.postgres.schema import OLDEST_SERVER
    from app.stores.postgres.status import facts

    before = time.time()
    found = facts(database)
    ahead = found.time - (before + time.time()) / 2
    version = f"PostgreSQL {found.version // 10000}.{found.version % 10000}"
    least = OLDEST_SERVER // 10000
    wrong = {
        f"{version} is too old; {least} or later is needed": (found.version < OLDEST_SERVER, "pg_upgrade --help"),
        "it is a standby, which is read-only: name its primary": (
            found.is_standby,
            "engram serve --store 'postgresql://USER@HOST1,HOST2/DATABASE?target_session_attrs=read-write'",
        ),
        "it has no data checksums, so damage of its files passes unnoticed": (
            found.data_checksums == "off",
            "pg_checksums --enable --pgdata DIRECTORY",
        ),
        f"{found.connections} of its {found.max_connections} connections are open; a server needs 3": (
            found.max_connections - found.connections < FREE_CONNECTIONS,
            shlex.join(["psql", settings.store, "-c", "ALTER SYSTEM SET max_connections = 200"]),
        ),
    }
    wrong |= {
        f"{setting} is off: {harm}": (getattr(found, setting) == "off", _turn_on(settings.store, setting))
        for setting, harm in HARM.items()
    }
    yield from (Finding("data", f"{database.name}: {what}", remedy) for what, (is_so, remedy) in wrong.items() if is_so)
    clock = f"its clock is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} this one"
    yield Finding("data", f"{database.name}: {version}, synchronous_commit {found.synchronous_commit}, {clock}")


def _turn_on(store: str, setting: str) -> str:
    """Return the command that turns a setting of a database on."""
    return shlex.join(["psql", store, "-c", f"ALTER SYSTEM SET {setting} = on", "-c", "SELECT pg_reload_conf()"])


def _schema(settings: Settings, database: "Database") -> Iterator[Finding]:
    """Yield what is found of the tables in a database, and of the servers that use them."""
    from app.stores.postgres.schema import MIGRATIONS, version
    from app.stores.postgres.status import leases

    found, expected = version(database), len(MIGRATIONS)
    if not found:
        yield Finding("data", f"{database.name}: no tables yet: the server makes them")
        return
    if found > expected:
        message = f"{database.name}: schema {found} is newer than this version's, {expected}"
        yield Finding("data", message, "git pull && scripts/serve")
    elif found < expected:
        message = f"{database.name}: schema {found} is an earlier version's, expected {expected}"
        yield Finding("data", message, shlex.join(["engram", "store", "migrate", settings.store]))
    servers = leases(database)
    living = [name for name, _, left in servers if left >= 0]
    dead = f", and {len(servers) - len(living)} that died" if len(living) < len(servers) else ""
    yield Finding("data", f"{database.name}: schema {found}; servers: {', '.join(living) or 'none'}{dead}")


def _keys(settings: Settings) -> Iterator[Finding]:
    yield from _modes(settings)
    create = keys_command(settings)
    try:
        with closing(open_keyring(settings)) as keyring:
            required = keyring.required
    except (SettingsError, StoreFailed) as error:
        is_shared, path = kind_of(settings.store) == "postgres", settings.key_file
        remedy = shlex.join(["psql", settings.store]) if is_shared else create
        yield Finding(
            "keys", str(error), remedy if path is None else f"openssl rand -hex 32 > {shlex.quote(str(path))}"
        )
        return
    if required:
        yield Finding("keys", f"needed by all clients of {settings.host}")
    elif is_local(settings.host):
        yield Finding("keys", f"none, and none are needed on {settings.host}")
    elif settings.insecure:
        yield Finding("keys", f"none, so everyone who reaches {settings.host} can use the server (setting insecure)")
    else:
        yield Finding("keys", f"there are none, and the server does not listen on {settings.host} without one", create)


def _modes(settings: Settings) -> Iterator[Finding]:
    """Yield the files of keys that others can read or change."""
    forbidden = {settings.data / KEYS_FILE: stat.S_IRWXG | stat.S_IRWXO}
    for secret in (settings.key_file, settings.store_password_file):
        if secret is not None:
            forbidden[secret] = stat.S_IWGRP | stat.S_IWOTH | stat.S_IROTH
    for path, bits in forbidden.items():
        is_secret = path.is_relative_to("/run/secrets")  # whose mode Docker sets
        if path.exists() and path.stat().st_mode & bits and not is_secret:
            mode = stat.filemode(path.stat().st_mode)
            yield Finding(
                "keys", f"{path} can be read or changed by others: {mode}", f"chmod 600 {shlex.quote(str(path))}"
            )


def _files(_: Settings) -> Iterator[Finding]:
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < LEAST_FILES:
        most = LEAST_FILES if hard == resource.RLIM_INFINITY else min(hard, 65536)
        yield Finding("files", f"this process may open {soft} files, and each connection is one", f"ulimit -n {most}")
    else:
        yield Finding("files", f"this process may open {'any number of' if soft < 0 else soft} files")


def _memory(_: Settings) -> Iterator[Finding]:
    size = memory_limit()
    if size < LEAST_MEMORY:
        yield Finding(
            "memory",
            f"{_megabytes(size)} in this machine or container; a server needs {_megabytes(LEAST_MEMORY)} or more",
            "docker update --memory 1g --memory-swap 1g CONTAINER",
        )
    else:
        yield Finding("memory", f"{_megabytes(size)} in this machine or container")


def _port(settings: Settings) -> Iterator[Finding]:
    place = f"{settings.host} port {settings.port}"
    try:
        family, kind, number, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, number) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        is_taken = error.errno == errno.EADDRINUSE
        if is_taken and kind_of(settings.store) == "sqlite" and is_in_use(settings.data / FILE):
            yield Finding("port", f"{place} is taken, as by the server that uses {settings.data}")
            return
        remedy = "engram serve --port 0" if is_taken else "engram serve --host 127.0.0.1"
        yield Finding("port", f"{place} cannot be listened on: {error.strerror}", remedy)
    else:
        yield Finding("port", f"{place} is free")


def _torch(settings: Settings) -> Iterator[Finding]:
    if settings.device != "cuda" and settings.backend != "torch":
        return
    try:
        import torch
    except ModuleNotFoundError:
        yield Finding(
            "torch", "it is not installed, and the settings ask for it", "pip install -c constraints.txt -e '.[torch]'"
        )
        return
    if settings.device == "cuda" and not torch.cuda.is_available():
        yield Finding(
            "torch", f"torch {torch.__version__} sees no CUDA device, and the settings ask for one", "nvidia-smi"
        )
    else:
        yield Finding("torch", f"torch {torch.__version__}")


def _clock(_: Settings) -> Iterator[Finding]:
    shown, installed = time.strftime("%Y-%m-%d %H:%M:%S %Z"), Path(__file__).stat().st_mtime
    if time.time() < installed - DAY:
        yield Finding("clock", f"{shown} is before this program was installed", "timedatectl set-ntp true")
    else:
        yield Finding("clock", shown)


def _megabytes(size: int) -> str:
    return f"{size // 2**20:,} MiB"


CHECKS: tuple[Check, ...] = (
    *(_python, _packages, _kernels, _checkpoints, _data, _keys, _files, _memory, _port, _torch, _clock),
)
