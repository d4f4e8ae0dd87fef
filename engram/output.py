"""Output that several commands print."""

import json
import math
import shlex
from pathlib import Path
from typing import Any


def print_json(value: Any) -> None:
    """Print a value as JSON, with null for numbers that are not finite."""
    print(json.dumps(finite(value), indent=2))


def finite(value: Any) -> Any:
    """Return a value for JSON, which has no NaN and no infinity: null in their place."""
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_serve_command(checkpoint: Path) -> None:
    """Print the command that serves a checkpoint."""
    from training.listing import parent

    print(f"Next: {shlex.join(['engram', 'serve', '--checkpoints', str(parent(checkpoint))])}")


def counted(number: int, what: str) -> str:
    """Return a number and its noun, in the plural but for 1."""
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
