"""Train, evaluate and export the models: tasks, trainer, checkpoints, figures, ONNX."""

import os

# ONNX Runtime reports to Microsoft unless this is set before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

REPORTED = (ValueError, OSError, RuntimeError, MemoryError)
"""Errors that end a command, or the run of one seed, with one line of text; any other error is a bug."""
