"""The command line: python -m benchmarks.chaos, and python -m benchmarks.chaos --servers 3."""

import argparse
from pathlib import Path

from benchmarks.chaos import faults, kills, replicas


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.chaos",
        description="Kill a server under load, and compare what its clients were answered with an undisturbed run; or "
        "several that share a PostgreSQL, with it and the proxy before them.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/dnc-copy"), help="the model to serve")
    parser.add_argument("--servers", type=int, default=1, help="servers; of several, everything around them fails too")
    parser.add_argument(
        "--clients", type=int, help="clients, every other one over WebSocket; 64, of several servers 200"
    )
    parser.add_argument("--kills", type=int, default=200, help="times that the server is killed, if it is one")
    parser.add_argument(
        "--seconds", type=float, help="that the one server lives, on average: 1; that several have faults: 40"
    )
    parser.add_argument("--seed", type=int, default=1, help="of what the clients do, and of the faults")
    parser.add_argument(
        "--faults",
        nargs="+",
        metavar="NAME",
        choices=faults.ALL,
        help=f"those of several servers: {', '.join(faults.ALL)}; all",
    )
    parser.add_argument(
        "--rest",
        type=float,
        default=0.0,
        help="seconds between an answer and a client's next request, of several servers",
    )
    given = parser.parse_args()
    if given.servers == 1:
        kills.run(given.checkpoint, given.clients or 64, given.kills, given.seconds or 1.0, given.seed)
    else:
        clients, seconds = given.clients or 200, given.seconds or 40.0
        replicas.run(given.checkpoint, given.servers, clients, seconds, given.seed, given.faults, given.rest)


if __name__ == "__main__":
    main()
