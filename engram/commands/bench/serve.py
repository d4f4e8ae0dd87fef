"""engram bench serve: the cost of a served request."""

import argparse

from engram.commands.bench.serving import add_serving, serving_options
from engram.options import Commands, command, positive

PATHS = ("ws-json", "ws-msgpack", "post", "steps", "streams", "infer")
"""The keys of benchmarks.serve.paths.PATHS."""


def add(commands: Commands) -> None:
    parser = command(commands, "serve", "What a served request costs, by each way to the server, beside the floors.")
    parser.add_argument("--paths", nargs="+", choices=PATHS, default=PATHS, help="which ways")
    parser.add_argument("--idle", type=positive, metavar="N", help="measure N idle WebSockets in place of all else")
    add_serving(parser, connections=[1, 32, 256, 1000])
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from benchmarks import serve
    from benchmarks.serve import idle

    if options.idle:
        idle.run(options.checkpoints, options.model, options.idle, options.data_root, options.command_line)
        return 0
    serve.run(serving_options(options), options.paths)
    return 0
