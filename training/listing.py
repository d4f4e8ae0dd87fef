"""List the checkpoints of a directory from their manifests; needs no torch."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from models.config import ConfigError
from models.manifest import MANIFEST_FILE, ONNX_FILE, Manifest, ManifestError, read_manifest, weights_file

HEAD = (
    f"{'model':<28} {'kind':<12} {'in':>5} {'out':>5} {'slots':>6} {'parameters':>11}  {'task':<20} errors per sequence"
)


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


def line(model: Mapping[str, Any]) -> str:
    """Return a description as a line below HEAD."""
    if "error" in model:
        return f"{model['name']:<28} damaged: {model['error']}"
    slots, task = model["memory_size"] or "-", model["task"].get("name", "-")
    sizes = f"{model['input_size']:>5} {model['output_size']:>5} {slots:>6} {model['parameters']:>11,}"
    return f"{model['name']:<28} {model['kind']:<12} {sizes}  {task:<20} {_errors(model['evaluation'])}"


def _errors(evaluation: list[Any]) -> str:
    """Return the range of the errors that a manifest records, and the number of measurements."""
    errors = [row["errors"] for row in evaluation if isinstance(row.get("errors"), int | float)]
    if not errors:
        return "not measured"
    span = f"{min(errors):.4g}" if min(errors) == max(errors) else f"{min(errors):.4g} to {max(errors):.4g}"
    return f"{span} {evaluation[0].get('unit', '')}, {len(errors)} measured"
