"""engram check: look for damage in the data of a server."""

from pathlib import Path
from typing import Annotated

import typer

from engram.options import Json
from engram.output import counted, print_json


def run(
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="the data directory")] = Path("data"),
    store: Annotated[
        str | None, typer.Option("--store", metavar="URL", help="in place of it, the database that servers share")
    ] = None,
    as_json: Json = False,
) -> int:
    """Print a line for every problem, and return 1 where there are any."""
    from tqdm import tqdm

    from app.places import place
    from training.progress import counting

    examined = place(str(data) if store is None else store)
    opened = examined.open_store(makes=False)
    problems: list[str] = []
    sessions = 0
    try:
        with counting("sessions", "session") as show:

            def show_sessions(done: int, of: int) -> None:
                nonlocal sessions
                sessions = of
                show(done, of)

            for problem in opened.check(show_sessions):
                problems.append(problem)
                if not as_json:
                    tqdm.write(problem)
    finally:
        opened.close()
    if as_json:
        print_json({"data": examined.shown, "sessions": sessions, "problems": problems})
    else:
        print(f"{examined.shown}: {counted(sessions, 'open session')}, {counted(len(problems), 'problem')} found")
    return 1 if problems else 0
