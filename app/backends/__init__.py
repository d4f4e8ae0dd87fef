"""Back ends compute the steps of models, and keep the states of sessions in arenas."""

import os

# ONNX Runtime reports to Microsoft unless this is set before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
