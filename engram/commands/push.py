"""engram push: copy a checkpoint to a directory, an archive or a hub."""

from typing import Annotated

import typer

from engram.options import Checkpoint, Hub


def run(
    directory: Checkpoint,
    destination: Annotated[
        str,
        typer.Argument(
            metavar="TO",
            help="a directory, an archive NAME.tar.gz, or hf://OWNER/NAME[@REVISION] of the Hugging Face Hub",
        ),
    ],
    hub: Hub = None,
    private: Annotated[bool, typer.Option("--private", help="a repository that is made now is private")] = False,
) -> int:
    """Copy it, and print where it is; of an archive also its hash."""
    from training.sharing.places import push

    print(push(directory, destination, hub, private))
    return 0
