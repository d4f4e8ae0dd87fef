"""engram keys: create, list and revoke the keys of a server, also while it runs."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.access.keys import FILE_ID, SCOPES, Key, KeyLimits, id_of, new_key
from app.settings import SettingsError, kind_of, load_settings
from app.tenants import DEFAULT
from engram.cli import add, group
from engram.options import Config, Json, positive, positive_number
from engram.output import counted, print_json, print_table

if TYPE_CHECKING:
    from app.stores.keys import KeyStore

Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="the data directory of the server (default: data, or ENGRAM_DATA)"),
]
Store = Annotated[
    str | None,
    typer.Option(
        "--store", metavar="URL", help="in place of it, the database that servers share (default: that of ENGRAM_STORE)"
    ),
]

HEADINGS = ("id", "tenant", "scopes", "limits", "created", "revoked", "name")


def create(
    data: Data = None,
    store: Store = None,
    config: Config = None,
    tenant: Annotated[
        str, typer.Option("--tenant", metavar="NAME", help="the tenant, whose sessions no other sees")
    ] = DEFAULT,
    scopes: Annotated[
        str, typer.Option("--scopes", metavar="SCOPE,...", help=f"some of {','.join(SCOPES)}")
    ] = ",".join(SCOPES),
    name: Annotated[str, typer.Option("--name", metavar="TEXT", help="words by which you know the key again")] = "",
    max_sessions: Annotated[
        int | None,
        typer.Option("--max-sessions", parser=positive, metavar="N", help="open sessions of the tenant, at most"),
    ] = None,
    steps_per_second: Annotated[
        float | None,
        typer.Option(
            "--steps-per-second",
            parser=positive_number,
            metavar="N",
            help="steps of all its sequences and sessions per second, at most",
        ),
    ] = None,
    max_batch: Annotated[
        int | None,
        typer.Option("--max-batch", parser=positive, metavar="N", help="sequences or sessions in one request, at most"),
    ] = None,
    max_steps: Annotated[
        int | None,
        typer.Option("--max-steps", parser=positive, metavar="N", help="steps in one sequence, at most"),
    ] = None,
    max_streams: Annotated[
        int | None,
        typer.Option("--max-streams", parser=positive, metavar="N", help="open WebSockets, at most"),
    ] = None,
) -> int:
    """Print the new key alone on the standard output, and what to do with it on the other."""
    limits = KeyLimits(
        max_sessions=max_sessions,
        steps_per_second=steps_per_second,
        max_batch=max_batch,
        max_steps=max_steps,
        max_streams=max_streams,
    )
    key, token = new_key(tenant, [scope.strip() for scope in scopes.split(",")], limits, name)
    with _opened(data, store, config) as (keys, place):
        keys.add(key)
    print(
        f"{place}: key {key.id} of tenant {key.tenant}, for {_words(sorted(key.scopes))}. It is not shown again. "
        "Send it as the header: Authorization: Bearer KEY",
        file=sys.stderr,
    )
    print(token)
    return 0


def list_(data: Data = None, store: Store = None, config: Config = None, as_json: Json = False) -> int:
    """Print the keys as a table, or as JSON."""
    with _opened(data, store, config) as (opened, place):
        keys = opened.list()
    if as_json:
        print_json([_document(key) for key in keys])
    else:
        if keys:
            print_table(HEADINGS, map(_cells, keys))
        valid = sum(key.revoked is None for key in keys)
        print(f"{place}: {counted(len(keys), 'key')}, {valid} valid")
    return 0


def revoke(
    key: Annotated[str, typer.Argument(metavar="ID", help="the id of the key, or the whole key")],
    data: Data = None,
    store: Store = None,
    config: Config = None,
) -> int:
    """Revoke one key. Raises SettingsError for one that is not there."""
    key_id = _id_in(key)
    now = time.time()
    with _opened(data, store, config) as (keys, place):
        if not keys.revoke(key_id, now):  # first of all: the list is an error where another key is damaged
            raise SettingsError(f"{place}: there is no key {key_id!r}; engram keys list shows all")
        [found] = [key for key in keys.list() if key.id == key_id]
    if found.revoked is None or found.revoked == now:
        print(f"{place}: key {key_id} of tenant {found.tenant} is revoked")
    else:
        print(f"{place}: key {key_id} of tenant {found.tenant} was revoked before, at {_time(found.revoked)}")
    return 0


commands = group()
add(commands, "create", "Create a key and print it, this once: the store keeps its hash only.", create)
add(commands, "list", "List the keys, also the revoked ones, without their secrets.", list_)
add(
    commands,
    "revoke",
    "Revoke a key for ever: a server refuses it within two seconds, and closes its open WebSockets.",
    revoke,
)


@contextmanager
def _opened(data: Path | None, store: str | None, config: str | None) -> "Iterator[tuple[KeyStore, str]]":
    """Open the store of keys that a server with these settings uses; yield it, and its place as messages name it."""
    from app.loading import open_keys

    kind = "sqlite" if data is not None and store is None else store
    settings = load_settings({"data": data, "store": kind, "config": config})
    with closing(open_keys(settings)) as keys:
        yield keys, settings.store if kind_of(settings.store) == "postgres" else str(settings.data)


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


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _words(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
