"""engram export: write the ONNX graph of a checkpoint."""

from pathlib import Path

from engram.options import Checkpoint, OwnModels, load_own
from engram.output import print_serve_command


def run(directory: Checkpoint, models: OwnModels = None) -> int:
    """Write it, and print its size."""
    load_own(None, models)
    path = exported(directory)
    print(f"{path}: {path.stat().st_size:,} bytes, equal to torch over 100 steps at batch 1, 2 and 5")
    print_serve_command(directory)
    return 0


def exported(directory: Path) -> Path:
    """Export a checkpoint, show the progress of the check, and return the path of the graph."""
    from training.export import export
    from training.progress import counting

    with counting("checking against torch", "step") as after_step:
        return export(directory, after_step)
