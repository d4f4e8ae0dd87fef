"""engram models: list the checkpoints of a directory."""

from pathlib import Path
from typing import Annotated

import typer

from engram.options import Json
from engram.output import print_json, print_table


def run(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="directory of checkpoints")] = Path("checkpoints"),
    as_json: Json = False,
) -> int:
    """Print a row for each checkpoint, and return 1 where one is damaged."""
    from training.listing import HEADINGS, cells, describe

    models = list(describe(directory))
    if as_json:
        print_json(models)
    else:
        print_table(HEADINGS, [cells(model) for model in models if "error" not in model])
        print(
            *(f"{model['name']} is damaged: {model['error']}\n" for model in models if "error" in model), sep="", end=""
        )
    return 1 if any("error" in model for model in models) else 0
