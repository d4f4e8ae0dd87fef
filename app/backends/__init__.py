"""What computes the steps: each back end keeps the states of its sessions in an arena of its own."""

import os

# ONNX Runtime reports to Microsoft unless it is told not to before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
