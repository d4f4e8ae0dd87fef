"""engram card: write the README of a checkpoint."""

from typing import Annotated

import typer

from engram.options import Checkpoint, OwnTasks, load_own


def run(
    directory: Checkpoint,
    license_id: Annotated[
        str | None,
        typer.Option(
            "--license",
            metavar="ID",
            help="the license of the weights, as the Hugging Face Hub names it, such as apache-2.0 (default: that of "
            "the card before)",
        ),
    ] = None,
    tasks: OwnTasks = None,
) -> int:
    """Write it, and print its path."""
    from training.card import write_card

    load_own(tasks)
    print(write_card(directory, license_id))
    return 0
