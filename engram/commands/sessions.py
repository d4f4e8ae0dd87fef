"""engram sessions: the sessions of a server, by its client."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from engram.cli import add, group
from engram.inputs import Input, read_inputs
from engram.options import Json, positive, whole
from engram.output import print_json, print_table
from engram.remote import DEFAULT_URL, ServerKey, Timeout, Url, connected
from engram.results import Format, Trace, check_format, print_line, print_result

if TYPE_CHECKING:
    from engram_client import Session

HEADINGS = ("id", "model", "slots", "step", "forced")

Id = Annotated[str, typer.Argument(metavar="ID", help="the id of the session")]
Step = Annotated[
    int | None, typer.Option("--step", parser=whole, metavar="STEP", help="after this step (default: the last)")
]


def list_(
    model: Annotated[str | None, typer.Option("--model", metavar="NAME", help="only those of this model")] = None,
    limit: Annotated[int, typer.Option("--limit", parser=positive, metavar="N", help="how many, at most 1000")] = 100,
    url: Url = DEFAULT_URL,
    key: ServerKey = None,
    timeout: Timeout = 10.0,
    as_json: Json = False,
) -> int:
    """Print the open sessions, the most recently used first."""
    with connected(url, key, timeout) as client:
        found = [_document(session) for session in client.sessions(model, limit)]
    if as_json:
        print_json(found)
    else:
        print_table(HEADINGS, map(_cells, found))
    return 0


def show(
    session_id: Id, url: Url = DEFAULT_URL, key: ServerKey = None, timeout: Timeout = 10.0, as_json: Json = False
) -> int:
    """Print one session."""
    with connected(url, key, timeout) as client:
        found = _document(client.session(session_id))
    if as_json:
        print_json(found)
    else:
        print_table(HEADINGS, [_cells(found)])
    return 0


def open_(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="a model of the server")],
    memory_size: Annotated[
        int | None,
        typer.Option("--memory-size", parser=positive, metavar="N", help="memory locations (default: as served)"),
    ] = None,
    url: Url = DEFAULT_URL,
    key: ServerKey = None,
    timeout: Timeout = 10.0,
    as_json: Json = False,
) -> int:
    """Open a session, and print its id."""
    with connected(url, key, timeout) as client:
        return _print_opened(client.open(model, memory_size), as_json)


def step(
    session_id: Id,
    file: Input = None,
    trace: Trace = None,
    format_: Format = "json",
    url: Url = DEFAULT_URL,
    key: ServerKey = None,
    timeout: Timeout = 10.0,
) -> int:
    """Step a session over inputs, once, and print the outputs."""
    check_format(format_, trace)
    inputs = read_inputs(file)
    with connected(url, key, timeout) as client:
        outputs, traces, reached = client.session(session_id).run(inputs, trace or [])
    print_result(format_, outputs, trace=traces, step=reached)
    return 0


def fork(
    session_id: Id,
    at: Step = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="NAME", help="with the state of that step, of this model as it is served now"),
    ] = None,
    url: Url = DEFAULT_URL,
    key: ServerKey = None,
    timeout: Timeout = 10.0,
    as_json: Json = False,
) -> int:
    """Fork a session, and print the id of the new one."""
    with connected(url, key, timeout) as client:
        return _print_opened(client.session(session_id).fork(at, model), as_json)


def rewind(
    session_id: Id,
    to: Annotated[int, typer.Argument(metavar="STEP", parser=whole, help="the step to go back to")],
    url: Url = DEFAULT_URL,
    key: ServerKey = None,
    timeout: Timeout = 10.0,
) -> int:
    """Rewind a session, and print where it is."""
    with connected(url, key, timeout) as client:
        session = client.session(session_id)
        session.rewind(to)
        print(f"{session.id}: at step {session.step}")
    return 0


def record(
    session_id: Id,
    start: Annotated[
        int | None,
        typer.Option("--from", parser=whole, metavar="STEP", help="the steps after this one (default: all kept ones)"),
    ] = None,
    stop: Annotated[
        int | None, typer.Option("--to", parser=whole, metavar="STEP", help="up to this one (default: the last)")
    ] = None,
    trace: Trace = None,
    url: Url = DEFAULT_URL,
    key: ServerKey = None,
    timeout: Timeout = 10.0,
) -> int:
    """Print the steps of a session as JSON lines."""
    with connected(url, key, timeout) as client:
        for recorded in client.session(session_id).recording(start, stop, trace or []):
            print_line(recorded._asdict())
    return 0


def delete(session_id: Id, url: Url = DEFAULT_URL, key: ServerKey = None, timeout: Timeout = 10.0) -> int:
    """End a session."""
    with connected(url, key, timeout) as client:
        client.session(session_id).delete()
    print(f"{session_id}: deleted")
    return 0


def _print_opened(session: "Session", as_json: bool) -> int:
    """Print the id of a new session, alone, for use in a script; or all of it as JSON."""
    if as_json:
        print_json(_document(session))
    else:
        print(session.id)
    return 0


def _document(session: "Session") -> dict[str, Any]:
    return {
        "id": session.id,
        "model": session.model,
        "memory_size": session.memory_size,
        "step": session.step,
        "force": session.force,
    }


def _cells(document: dict[str, Any]) -> list[object]:
    forced = ",".join(document["force"] or ())
    return [document["id"], document["model"], document["memory_size"] or "-", document["step"], forced]


commands = group()
for name, about, run in (
    ("list", "List the open sessions, the most recently used first.", list_),
    ("show", "Show a session: its model, its memory, and the step that it has reached.", show),
    ("open", "Open a session, and print its id.", open_),
    ("step", "Step a session over inputs, once, and print the outputs.", step),
    ("fork", "Fork a session at a step, and print the id of the new one.", fork),
    ("rewind", "Go back to a step; until the next step, it can also go forward again.", rewind),
    ("record", "Print the steps of a session as JSON lines: inputs, outputs and traces.", record),
    ("delete", "End a session.", delete),
):
    add(commands, name, about, run)
