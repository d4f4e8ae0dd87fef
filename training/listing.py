"""List the checkpoints of a directory from their manifests; needs no torch."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from models.config import ConfigError
from models.manifest import MANIFEST_FILE, ONNX_FILE, Manifest, ManifestError, read_manifest, weights_file

HEADINGS = ("model", "kind", "in", "out", "slots", "parameters", "task", "errors per sequence")


def find_checkpoints(directory: Path) -> list[Path]:
    """Return the checkpoints in a directory, by name. Raises ConfigError if there is none."""
    found = sorted(path.parent for path in directory.glob(f"*/{MANIFEST_FILE}"))
    if found:
        return found
    message = f"{directory}: there is no checkpoint, a directory with a {MANIFEST_FILE}, in it"
    if (directory / MANIFEST_FILE).exists():
        message += f"; it is one itself: give the directory that it is in, {parent(directory)}"
    raise ConfigError(message)


def parent(directory: Path) -> Path:
    """Return the parent of a directory, also of `.` or `..`."""
    return directory.parent if directory.name not in ("", "..") else directory.resolve().parent


def describe(directory: Path) -> Iterator[dict[str, Any]]:
    """Yield a description of every checkpoint in a directory, or an `error` for a damaged one."""
    for path in find_checkpoints(directory):
        try:
            manifest = read_manifest(path)
            weights_file(path, manifest)
        except ManifestError as error:
            yield {"name": path.name, "error": str(error)}
        else:
            yield _description(path, manifest)


def _description(path: Path, manifest: Manifest) -> dict[str, Any]:
    return {
        "name": path.name,
        "kind": manifest.kind,
        "task": manifest.task,
        "input_size": manifest.input_size,
        "output_size": manifest.output_size,
        "memory_size": manifest.config.get("memory_size"),
        "word_size": manifest.config.get("word_size"),
        "controller": manifest.config.get("controller"),
        "parameters": manifest.parameters,
        "exported": (path / ONNX_FILE).exists(),
        "evaluation": manifest.evaluation,
    }


def cells(model: Mapping[str, Any]) -> list[str]:
    """Return a description as a row below HEADINGS."""
    slots, task = model["memory_size"] or "-", model["task"].get("name", "-")
    sizes = [str(model["input_size"]), str(model["output_size"]), str(slots), f"{model['parameters']:,}"]
    return [model["name"], model["kind"], *sizes, task, errors_text(model["evaluation"])]


def errors_text(evaluation: list[Any]) -> str:
    """Return the range of the errors that a manifest records, and the number of measurements."""
    errors = [row["errors"] for row in evaluation if isinstance(row.get("errors"), int | float)]
    if not errors:
        return "not measured"
    span = f"{min(errors):.4g}" if min(errors) == max(errors) else f"{min(errors):.4g} to {max(errors):.4g}"
    return f"{span} {evaluation[0].get('unit', '')}, {len(errors)} measured"
