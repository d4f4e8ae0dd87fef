"""engram store: copy the sessions of a server elsewhere, bring a schema up to date, and look at a store."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.settings import load_settings
from engram.cli import add, group
from engram.options import Config, Json
from engram.output import counted, print_json

if TYPE_CHECKING:
    from app.places import KnownServer, Place, Status

PLACE = "a data directory, or the URL of a database, postgresql://USER@HOST/DATABASE"

ChosenPlace = Annotated[
    str | None,
    typer.Argument(metavar="PLACE", help=f"{PLACE} (default: the store of ENGRAM_STORE, ENGRAM_DATA, --config)"),
]


def copy(
    source: Annotated[str, typer.Argument(metavar="FROM", help=f"{PLACE}; it stays as it is")],
    target: Annotated[str, typer.Argument(metavar="TO", help="another such place, which has no sessions")],
) -> int:
    """Copy everything, and print how much it was."""
    from app.places import copy_place, place
    from training.progress import counting

    origin, goal = place(source), place(target)
    with counting("sessions", "session") as show:
        copied, keys = copy_place(origin, goal, show)
    sessions, tapes, steps, snapshots = copied
    counts = [counted(sessions, "session"), counted(tapes, "tape"), counted(steps, "step")]
    counts += [counted(snapshots, "snapshot"), counted(keys, "key")]
    print(f"{origin.shown} -> {goal.shown}: {', '.join(counts)} copied")
    return 0


def migrate(place: ChosenPlace = None, config: Config = None) -> int:
    """Bring a schema up to date, and print from which version to which."""
    chosen = _place(place, config)
    before, after = chosen.migrate()
    if not before:
        print(f"{chosen.shown}: schema {after} made")
    elif before == after:
        print(f"{chosen.shown}: schema {after}, up to date already")
    else:
        print(f"{chosen.shown}: schema {before} brought up to date, to {after}")
    return 0


def status(place: ChosenPlace = None, config: Config = None, as_json: Json = False) -> int:
    """Print how a store is, as lines or as JSON; return 1 where its schema is another version's."""
    chosen = _place(place, config)
    found = chosen.status()
    if as_json:
        print_json(_document(chosen, found))
    else:
        _print_status(chosen, found)
    return 0 if found.version == found.expected else 1


commands = group()
add(
    commands,
    "copy",
    "Copy all sessions and keys to a store without sessions; the servers of both must be stopped.",
    copy,
)
add(commands, "migrate", "Make the tables of a store, or bring those of an earlier version up to date.", migrate)
add(commands, "status", "Show the schema, the sessions, the servers and the size of a store.", status)


def _place(word: str | None, config: str | None) -> "Place":
    from app.places import place, place_of

    if word is not None:
        return place(word)
    return place_of(load_settings({"config": config}))


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
