"""engram pull: fetch a checkpoint from a directory, an archive or a hub."""

from pathlib import Path
from typing import Annotated

import typer

from engram.options import Hub
from engram.output import print_serve_command


def run(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FROM",
            help="a checkpoint, an archive NAME.tar.gz or its URL, or hf://OWNER/NAME[@REVISION] of the Hugging Face "
            "Hub",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="directory of checkpoints that it goes into")
    ] = Path("checkpoints"),
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="its name there (default: its own)")
    ] = None,
    sha256: Annotated[
        str | None, typer.Option("--sha256", metavar="HEX", help="the hash that engram push printed of the archive")
    ] = None,
    hub: Hub = None,
) -> int:
    """Fetch it, check it, and print where it is."""
    from training.progress import counting
    from training.sharing.places import pull

    with counting(f"fetching {source}", "byte") as show:
        pulled = pull(source, out, name, sha256, hub, lambda done, total: show(done, max(done, total)))
    print(pulled)
    print_serve_command(pulled)
    return 0
