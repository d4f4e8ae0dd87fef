"""engram serve: serve the checkpoints of a directory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from app.settings import SettingsError, load_settings
from engram.flags import with_settings
from engram.options import Hub, positive


@with_settings
def run(
    settings: Mapping[str, Any],
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="FROM",
            help="in place of --checkpoints: a directory of checkpoints, one checkpoint, an archive NAME.tar.gz or its "
            "URL, or hf://OWNER/NAME of the Hugging Face Hub, which is fetched first",
        ),
    ] = None,
    hub: Hub = None,
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
    if source is not None:
        settings = {**settings, "checkpoints": _fetched(source, hub, settings)}
    loaded = load_settings(settings)
    if servers is not None:
        from engram.fleet import serve_together

        return serve_together(settings, loaded, servers)
    from app.server import serve

    return serve(loaded)


def _fetched(source: str, hub: str | None, settings: Mapping[str, Any]) -> Path:
    """Return the directory of checkpoints that a source names, and show its progress. Raises SettingsError."""
    if settings.get("checkpoints") is not None:
        raise SettingsError(f"--checkpoints and {source} both name models: give one of them")
    from training.progress import counting
    from training.sharing.places import to_serve

    with counting(f"fetching {source}", "byte") as show:
        return to_serve(source, hub, lambda done, total: show(done, max(done, total)))
