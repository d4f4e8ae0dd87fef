"""engram serve: serve the checkpoints of a directory."""

import argparse

from app.settings import Settings, add_settings_flags, load_settings
from engram.options import Commands, positive


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "serve",
        help="Serve every checkpoint of a directory over HTTP and WebSocket.",
        description="Serve every checkpoint of a directory over HTTP and WebSocket. Each setting is also read from "
        "the environment (ENGRAM_PORT, ...) and from a TOML file (--config); flags win over both.",
    )
    parser.add_argument(
        "--servers",
        type=positive,
        metavar="N",
        help="serve by N processes that share the database of the setting store, behind HAProxy, which must be "
        "installed and listens on host and port; the servers listen on the N ports after that one, of 127.0.0.1",
    )
    add_settings_flags(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    settings = load_settings(vars(options))
    if options.servers is not None:
        from engram.fleet import serve_together

        given = {name: value for name, value in vars(options).items() if name in {*Settings.model_fields, "config"}}
        return serve_together(given, settings, options.servers)
    from app.server import serve

    return serve(settings)
