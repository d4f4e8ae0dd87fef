"""engram serve: serve the checkpoints of a directory."""

import argparse

from app.settings import add_settings_flags, load_settings
from engram.options import Commands


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "serve",
        help="Serve every checkpoint of a directory over HTTP and WebSocket.",
        description="Serve every checkpoint of a directory over HTTP and WebSocket. Each setting is also read from "
        "the environment (ENGRAM_PORT, ...) and from a TOML file (--config); flags win over both.",
    )
    add_settings_flags(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from app.server import serve

    return serve(load_settings(vars(options)))
