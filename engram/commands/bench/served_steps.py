"""engram bench served-steps: session-steps per second over WebSocket."""

import argparse

from engram.commands.bench.serving import add_served_model
from engram.options import Commands, command, positive, seconds

BACKENDS = ("fused", "onnx")
"""The keys of benchmarks.served_steps.BACKENDS."""


def add(commands: Commands) -> None:
    parser = command(commands, "served-steps", "Session-steps per second over WebSocket, beside the back end alone.")
    add_served_model(parser)
    parser.add_argument("--sessions", type=positive, nargs="+", default=[1, 32, 256], help="concurrent sessions")
    parser.add_argument("--backend", choices=BACKENDS, default="fused", help="what computes the steps")
    parser.add_argument("--rounds", type=positive, default=3, help="measurements of which the median is taken")
    parser.add_argument("--seconds", type=seconds, default=3.0, help="time of each measurement")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from benchmarks import served_steps

    served_steps.run(
        options.checkpoints, options.model, options.sessions, options.backend, options.rounds, options.seconds
    )
    return 0
