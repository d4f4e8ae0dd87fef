"""engram check: look for damage in the data of a server."""

import argparse
from pathlib import Path

from engram.options import Commands, add_json, command
from engram.output import counted, print_json


def add(commands: Commands) -> None:
    about = "Look for damage in the sessions that a server keeps; one that has a data directory must be stopped."
    parser = command(commands, "check", about)
    parser.add_argument("--data", type=Path, default=Path("data"), metavar="DIR", help="the data directory")
    parser.add_argument("--store", metavar="URL", help="in place of it, the database that servers share")
    add_json(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print a line for every problem, and return 1 where there are any."""
    from tqdm import tqdm

    from app.places import place
    from training.progress import counting

    examined = place(str(options.data) if options.store is None else options.store)
    store = examined.open_store(makes=False)
    problems: list[str] = []
    sessions = 0
    try:
        with counting("sessions", "session") as show:

            def show_sessions(done: int, of: int) -> None:
                nonlocal sessions
                sessions = of
                show(done, of)

            for problem in store.check(show_sessions):
                problems.append(problem)
                if not options.json:
                    tqdm.write(problem)
    finally:
        store.close()
    if options.json:
        print_json({"data": examined.shown, "sessions": sessions, "problems": problems})
    else:
        print(f"{examined.shown}: {counted(sessions, 'open session')}, {counted(len(problems), 'problem')} found")
    return 1 if problems else 0
