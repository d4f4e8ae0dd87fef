"""The command line: python -m benchmarks.hostile sockets --frames 1000000."""

import argparse
import itertools
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.chaos import Server, only
from benchmarks.hostile import requests, sockets
from benchmarks.hostile.beside import Neighbour, Vitals, check_rest, warm_up
from benchmarks.machine import machine, versions

MAX_BODY_BYTES = 150_000

Run = Callable[[Server, Neighbour, argparse.Namespace], Counter[str]]


def attack_sockets(server: Server, neighbour: Neighbour, options: argparse.Namespace) -> Counter[str]:
    """Send frames over WebSockets."""
    target = sockets.Target.of(address(server), options.checkpoint.name, neighbour, MAX_BODY_BYTES)
    return sockets.attack(target, neighbour, options.seed, numbers(options), options.frames)


def attack_requests(server: Server, neighbour: Neighbour, options: argparse.Namespace) -> Counter[str]:
    """Send raw HTTP requests."""
    return requests.attack(
        address(server), options.checkpoint.name, neighbour, options.seed, numbers(options), options.requests
    )


def numbers(options: argparse.Namespace) -> Iterator[int]:
    """Return the numbers of the cases."""
    return itertools.count() if options.only is None else iter([options.only])


def address(server: Server) -> str:
    return server.url.removeprefix("http://")


def run(attack: Run, options: argparse.Namespace) -> None:
    """Attack a server, and print what was done. Raises Violation."""
    print(f"{machine()}; {versions('uvicorn', 'websockets')}; seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        limits = ("--max-body-bytes", str(MAX_BODY_BYTES), "--idle-timeout", "60")
        with (
            Server(only(options.checkpoint, Path(directory)), Path(directory, "data"), *limits) as server,
            Neighbour(address(server), options.checkpoint.name) as neighbour,
        ):
            warm_up(address(server), options.checkpoint.name)
            before, began = Vitals.of(server.process.pid), time.monotonic()
            counts = attack(server, neighbour, options)
            seconds = time.monotonic() - began
            check_rest(neighbour, server.process.pid, server.log, before)
            after = Vitals.of(server.process.pid)
    print(", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    print(f"{neighbour.steps} steps of the neighbour compared; {seconds:.0f} s")
    print(f"before: {before}\nafter:  {after}")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.hostile", description="Attack a server with random input, beside an honest client."
    )
    commands = parser.add_subparsers(required=True, metavar="ATTACK")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--checkpoint", type=Path, default=Path("checkpoints/dnc-copy"), help="the model to serve")
    shared.add_argument("--seed", type=int, default=1, help="of all cases (default: 1)")
    shared.add_argument("--only", type=int, metavar="NUMBER", help="run one case, as an error says")
    over_sockets = commands.add_parser("sockets", parents=[shared], help="frames and messages over WebSockets")
    over_sockets.add_argument("--frames", type=int, default=1_000_000, help="frames to send (default: 1000000)")
    over_sockets.set_defaults(attack=attack_sockets)
    over_http = commands.add_parser("requests", parents=[shared], help="raw HTTP requests")
    over_http.add_argument("--requests", type=int, default=20_000, help="requests to send (default: 20000)")
    over_http.set_defaults(attack=attack_requests)
    options = parser.parse_args()
    run(options.attack, options)


if __name__ == "__main__":
    main()
