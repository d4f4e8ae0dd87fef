"""Train, evaluate and export the models: tasks, trainer, checkpoints, figures, ONNX."""

import os

# ONNX Runtime reports to Microsoft unless it is told not to before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

TOLD = (ValueError, OSError, RuntimeError, MemoryError)
"""What ends a command, or the run of one seed, with a line that tells it; all else is a mistake of this program's."""
