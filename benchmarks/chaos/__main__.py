"""The command line: python -m benchmarks.chaos --kills 200."""

import argparse
from pathlib import Path

from benchmarks.chaos.kills import run


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.chaos",
        description="Kill a server under load, and compare what its clients were answered with an undisturbed run.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoints/dnc-copy"), help="the model to serve")
    parser.add_argument("--clients", type=int, default=64, help="clients, every other one over WebSocket")
    parser.add_argument("--kills", type=int, default=200, help="times that the server is killed")
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds that it lives, on average")
    parser.add_argument("--seed", type=int, default=1, help="of what the clients do, and when the server is killed")
    run(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
