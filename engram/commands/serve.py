"""engram serve: serve the checkpoints of a directory."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from app.settings import load_settings
from engram.flags import with_settings
from engram.options import positive


@with_settings
def run(
    settings: Mapping[str, Any],
    servers: Annotated[
        int | None,
        typer.Option(
            "--servers",
            parser=positive,
            metavar="N",
            help="serve by N processes that share the database of the setting store, behind HAProxy, which must be "
            "installed and listens on host and port; the servers listen on the N ports after that one, of 127.0.0.1",
        ),
    ] = None,
) -> int:
    """Serve until a signal comes, and return the exit status."""
    loaded = load_settings(settings)
    if servers is not None:
        from engram.fleet import serve_together

        return serve_together(settings, loaded, servers)
    from app.server import serve

    return serve(loaded)
