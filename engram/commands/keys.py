"""engram keys: create, list and revoke the keys of a server, also while it runs."""

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.access.keys import FILE_ID, SCOPES, Key, KeyLimits, id_of, new_key
from app.settings import SettingsError, kind_of, load_settings
from app.tenants import DEFAULT
from engram.options import Commands, add_json, command, positive, positive_number
from engram.output import counted, print_json

if TYPE_CHECKING:
    from app.stores.keys import KeyStore

LIMITS: dict[str, tuple[Callable[[str], float], str]] = {
    "max_sessions": (positive, "open sessions of the tenant"),
    "steps_per_second": (positive_number, "steps of all its sequences and sessions per second"),
    "max_batch": (positive, "sequences or sessions in one request"),
    "max_steps": (positive, "steps in one sequence"),
    "max_streams": (positive, "open WebSockets"),
}
"""The limits of a key: how each is read, and its meaning."""

HEADINGS = ("id", "tenant", "scopes", "limits", "created", "revoked", "name")


def add(commands: Commands) -> None:
    parser = command(commands, "keys", "Create, list and revoke the keys of a server, also while it runs.")
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    _add_create(actions)
    _add_list(actions)
    _add_revoke(actions)


def _add_create(actions: Commands) -> None:
    about = "Create a key and print it, this once: the store keeps its hash only."
    parser = command(actions, "create", about)
    _add_store(parser)
    parser.add_argument("--tenant", default=DEFAULT, help="the tenant, whose sessions no other sees")
    scopes = ",".join(SCOPES)
    parser.add_argument("--scopes", default=scopes, metavar="SCOPE,...", help=f"some of {scopes}")
    parser.add_argument("--name", default="", metavar="TEXT", help="words by which you know the key again")
    for limit, (read, meaning) in LIMITS.items():
        parser.add_argument(f"--{limit.replace('_', '-')}", type=read, metavar="N", help=f"{meaning}, at most")
    parser.set_defaults(run=create)


def _add_list(actions: Commands) -> None:
    parser = command(actions, "list", "List the keys, also the revoked ones, without their secrets.")
    _add_store(parser)
    add_json(parser)
    parser.set_defaults(run=list_)


def _add_revoke(actions: Commands) -> None:
    about = "Revoke a key for ever: a server refuses it within two seconds, and closes its open WebSockets."
    parser = command(actions, "revoke", about)
    parser.add_argument("key", metavar="ID", help="the id of the key, or the whole key")
    _add_store(parser)
    parser.set_defaults(run=revoke)


def _add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="the data directory of the server (default: data, or ENGRAM_DATA)"
    )
    parser.add_argument(
        "--store", metavar="URL", help="in place of it, the database that servers share (default: that of ENGRAM_STORE)"
    )
    parser.add_argument("--config", metavar="FILE", help="the TOML file with the settings of the server")


@contextmanager
def _opened(options: argparse.Namespace) -> "Iterator[tuple[KeyStore, str]]":
    """Open the store of keys that a server with these settings uses; yield it, and its place as messages name it."""
    from app.loading import open_keys

    store = "sqlite" if options.data is not None and options.store is None else options.store
    settings = load_settings({"data": options.data, "store": store, "config": options.config})
    with closing(open_keys(settings)) as keys:
        yield keys, settings.store if kind_of(settings.store) == "postgres" else str(settings.data)


def create(options: argparse.Namespace) -> int:
    """Print the new key alone on the standard output, and what to do with it on the other."""
    limits = KeyLimits(**{limit: getattr(options, limit) for limit in LIMITS})
    scopes = [scope.strip() for scope in options.scopes.split(",")]
    key, token = new_key(options.tenant, scopes, limits, options.name)
    with _opened(options) as (store, data):
        store.add(key)
    print(
        f"{data}: key {key.id} of tenant {key.tenant}, for {_words(sorted(key.scopes))}. It is not shown again. "
        "Send it as the header: Authorization: Bearer KEY",
        file=sys.stderr,
    )
    print(token)
    return 0


def list_(options: argparse.Namespace) -> int:
    """Print the keys as a table, or as JSON."""
    with _opened(options) as (store, data):
        keys = store.list()
    if options.json:
        print_json([_document(key) for key in keys])
    else:
        _print_table([HEADINGS, *map(_cells, keys)] if keys else [])
        valid = sum(key.revoked is None for key in keys)
        print(f"{data}: {counted(len(keys), 'key')}, {valid} valid")
    return 0


def revoke(options: argparse.Namespace) -> int:
    """Revoke one key. Raises SettingsError for one that is not there."""
    key_id = _id_in(options.key)
    now = time.time()
    with _opened(options) as (store, data):
        if not store.revoke(key_id, now):  # first of all: the list is an error where another key is damaged
            raise SettingsError(f"{data}: there is no key {key_id!r}; engram keys list shows all")
        [found] = [key for key in store.list() if key.id == key_id]
    if found.revoked is None or found.revoked == now:
        print(f"{data}: key {key_id} of tenant {found.tenant} is revoked")
    else:
        print(f"{data}: key {key_id} of tenant {found.tenant} was revoked before, at {_time(found.revoked)}")
    return 0


def _id_in(word: str) -> str:
    """Return the id in a word, which may be the id or a whole key."""
    key_id = id_of(word.encode(errors="replace")).decode(errors="replace")
    return word if key_id == FILE_ID else key_id


def _document(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "tenant": key.tenant,
        "scopes": sorted(key.scopes),
        "limits": _limits(key),
        "created": _time(key.created),
        "revoked": None if key.revoked is None else _time(key.revoked),
        "name": key.name,
    }


def _cells(key: Key) -> tuple[str, ...]:
    limits = " ".join(f"{limit}={value:g}" for limit, value in _limits(key).items())
    revoked = "" if key.revoked is None else _time(key.revoked)
    return (key.id, key.tenant, ",".join(sorted(key.scopes)), limits, _time(key.created), revoked, key.name)


def _limits(key: Key) -> dict[str, float]:
    return {limit: value for limit, value in key.limits._asdict().items() if value is not None}


def _print_table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _words(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
