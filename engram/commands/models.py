"""engram models: list the checkpoints of a directory."""

from pathlib import Path
from typing import Annotated

import typer

from engram.options import Json
from engram.output import print_json


def run(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="directory of checkpoints")] = Path("checkpoints"),
    as_json: Json = False,
) -> int:
    """Print a line for each checkpoint, and return 1 where one is damaged."""
    from training.listing import HEAD, describe, line

    models = list(describe(directory))
    if as_json:
        print_json(models)
    else:
        print(HEAD, *map(line, models), sep="\n")
    return 1 if any("error" in model for model in models) else 0
