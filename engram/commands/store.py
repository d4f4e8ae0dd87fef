"""engram store: copy the sessions of a server elsewhere, bring a schema up to date, and look at a store."""

import argparse
from typing import TYPE_CHECKING, Any

from app.settings import load_settings
from engram.options import Commands, add_json, command
from engram.output import counted, print_json

if TYPE_CHECKING:
    from app.places import KnownServer, Place, Status

PLACE = "a data directory, or the URL of a database, postgresql://USER@HOST/DATABASE"


def add(commands: Commands) -> None:
    parser = command(commands, "store", "Copy, bring up to date, and look at the store of a server.")
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    _add_copy(actions)
    _add_migrate(actions)
    _add_status(actions)


def _add_copy(actions: Commands) -> None:
    about = "Copy all sessions and keys to a store without sessions; the servers of both must be stopped."
    parser = command(actions, "copy", about)
    parser.add_argument("source", metavar="FROM", help=f"{PLACE}; it stays as it is")
    parser.add_argument("target", metavar="TO", help="another such place, which has no sessions")
    parser.set_defaults(run=copy)


def _add_migrate(actions: Commands) -> None:
    about = "Make the tables of a store, or bring those of an earlier version up to date."
    parser = command(actions, "migrate", about)
    _add_place(parser)
    parser.set_defaults(run=migrate)


def _add_status(actions: Commands) -> None:
    parser = command(actions, "status", "Show the schema, the sessions, the servers and the size of a store.")
    _add_place(parser)
    add_json(parser)
    parser.set_defaults(run=status)


def _add_place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "place", nargs="?", metavar="PLACE", help=f"{PLACE} (default: the store of ENGRAM_STORE, ENGRAM_DATA, --config)"
    )
    parser.add_argument("--config", metavar="FILE", help="the TOML file with the settings of the server")


def _place(options: argparse.Namespace) -> "Place":
    from app.places import place, place_of

    if options.place is not None:
        return place(options.place)
    return place_of(load_settings({"config": options.config}))


def copy(options: argparse.Namespace) -> int:
    """Copy everything, and print how much it was."""
    from app.places import copy_place, place
    from training.progress import counting

    source, target = place(options.source), place(options.target)
    with counting("sessions", "session") as show:
        copied, keys = copy_place(source, target, show)
    sessions, tapes, steps, snapshots = copied
    counts = [counted(sessions, "session"), counted(tapes, "tape"), counted(steps, "step")]
    counts += [counted(snapshots, "snapshot"), counted(keys, "key")]
    print(f"{source.shown} -> {target.shown}: {', '.join(counts)} copied")
    return 0


def migrate(options: argparse.Namespace) -> int:
    """Bring a schema up to date, and print from which version to which."""
    place = _place(options)
    before, after = place.migrate()
    if not before:
        print(f"{place.shown}: schema {after} made")
    elif before == after:
        print(f"{place.shown}: schema {after}, up to date already")
    else:
        print(f"{place.shown}: schema {before} brought up to date, to {after}")
    return 0


def status(options: argparse.Namespace) -> int:
    """Print how a store is, as lines or as JSON; return 1 where its schema is another version's."""
    place = _place(options)
    found = place.status()
    if options.json:
        print_json(_document(place, found))
    else:
        _print_status(place, found)
    return 0 if found.version == found.expected else 1


def _document(place: "Place", found: "Status") -> dict[str, Any]:
    servers = [{"name": each.name, "place": each.place, "lease": each.left} for each in found.servers]
    return {"store": place.shown} | found._asdict() | {"servers": servers}


def _print_status(place: "Place", found: "Status") -> None:
    fits = "" if found.version == found.expected else f"; this Engram expects {found.expected}"
    print(f"{place.shown}: schema {found.version}{fits}, {found.size / 2**20:,.1f} MiB")
    if found.sessions is not None and found.ended is not None:
        print(f"{counted(found.sessions, 'open session')}, {found.ended:,} ended")
    print(f"{counted(len(found.servers), 'server')}{''.join(map(_line, found.servers))}")


def _line(server: "KnownServer") -> str:
    if server.left is None:
        return f"\n  {server.name}"
    lease = (
        f"{server.left:.1f} s of its lease left" if server.left >= 0 else f"its lease is over for {-server.left:.1f} s"
    )
    return f"\n  {server.name} at {server.place}: {lease}"
