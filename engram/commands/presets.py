"""engram presets: the presets that come with Engram."""

import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from engram.nearest import suggestion
from engram.options import Json, preset_files, preset_names
from engram.output import print_json, print_table

HEADINGS = ("preset", "kind", "task", "slots", "updates", "errors per sequence of the checkpoint")


def run(
    preset: Annotated[
        str | None,
        typer.Argument(
            metavar="PRESET", help="the name of one, to show all of it (default: list all)", autocompletion=preset_names
        ),
    ] = None,
    checkpoints: Annotated[
        Path, typer.Option("--checkpoints", metavar="DIR", help="directory with the checkpoints of presets")
    ] = Path("checkpoints"),
    as_json: Json = False,
) -> int:
    """Print a row for each preset, or the file of one."""
    if preset is not None:
        return _show(preset, checkpoints, as_json)
    found = [_described(path, checkpoints) for path in preset_files()]
    if as_json:
        print_json(found)
    else:
        print_table(HEADINGS, map(_cells, found))
    return 0


def _show(preset: str, checkpoints: Path, as_json: bool) -> int:
    files = {path.stem: path for path in preset_files()}
    if preset not in files:
        raise ValueError(f"no preset {preset!r}: engram presets lists them.{suggestion(preset, files)}")
    described = _described(files[preset], checkpoints)
    if as_json:
        print_json(described)
    else:
        print(files[preset].read_text().rstrip())
        print(f"\n# {checkpoints / preset}: {_reached(described)}")
    return 0


def _described(path: Path, checkpoints: Path) -> dict[str, Any]:
    """Return a preset: its name, what its first comment says, its tables, and what its checkpoint has recorded."""
    text = path.read_text()
    about = " ".join(line.lstrip("# ") for line in text.partition("\n\n")[0].splitlines() if line.startswith("#"))
    recorded = _recorded(checkpoints / path.stem)
    return {"name": path.stem, "about": about} | tomllib.loads(text) | {"recorded": recorded}


def _recorded(directory: Path) -> list[Any]:
    """Return the measurements that a checkpoint records; none where there is no checkpoint that can be read."""
    from models.manifest import ManifestError, read_manifest

    try:
        return read_manifest(directory).evaluation
    except ManifestError:
        return []


def _cells(described: dict[str, Any]) -> list[object]:
    model = described["model"]
    sizes = [model.get("memory_size", "-"), described["training"]["updates"]]
    return [described["name"], model["kind"], described["task"]["name"], *sizes, _reached(described)]


def _reached(described: dict[str, Any]) -> str:
    from training.listing import errors_text

    return errors_text(described["recorded"])
