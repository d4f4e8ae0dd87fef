"""LitServe and the torch model: python -m benchmarks.floors.litserve CHECKPOINT SESSIONS

One worker process, with the states; batches of all requests that come within BATCH_TIMEOUT; ZeroMQ between the
processes (`fast_queue`). The body names the session, for LitServe passes nothing else of a request to the worker.
"""

import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import litserve
import torch

from benchmarks.floors import is_ready
from benchmarks.floors.batches import Batches
from benchmarks.ports import free_port

BATCH_TIMEOUT = 0.001
"""Seconds. Less is faster for one client, and slower for 32, which then leave no core to the worker."""


class SteppedSessions(litserve.LitAPI):  # type: ignore[misc]
    """LitServe's API: a step of each session of a batch."""

    def __init__(self, checkpoint: Path, **options: Any) -> None:
        super().__init__(**options)
        self._checkpoint = checkpoint

    def setup(self, device: str) -> None:  # noqa: ARG002
        self._batches = Batches(self._checkpoint)

    def batch(self, inputs: list[dict[str, Any]]) -> tuple[list[str], torch.Tensor]:
        return [asked["session"] for asked in inputs], torch.tensor([asked["inputs"][0] for asked in inputs])

    def predict(self, batch: tuple[list[str], torch.Tensor]) -> list[list[float]]:
        outputs: list[list[float]] = self._batches.step(*batch).tolist()
        return outputs

    def unbatch(self, output: list[list[float]]) -> list[list[float]]:
        return output

    def encode_response(self, output: list[float]) -> dict[str, Any]:
        return {"outputs": [output]}


def tell_when_ready(port: int) -> None:
    """Print LitServe's address once its processes are there: its own message comes before them."""
    while not is_ready(port, "/health"):
        time.sleep(0.1)
    sys.stderr.write(f"LitServe is on http://127.0.0.1:{port} (end it by a signal)\n")


def main(checkpoint: Path, sessions: int) -> None:
    """Run LitServe until a signal."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # otherwise its processes would go on
    port = free_port()
    threading.Thread(target=tell_when_ready, args=[port], daemon=True).start()
    steps = SteppedSessions(checkpoint, max_batch_size=sessions, batch_timeout=BATCH_TIMEOUT)
    server = litserve.LitServer(steps, accelerator="cpu", devices=1, workers_per_device=1, fast_queue=True)
    options = {"num_api_servers": 1, "generate_client_file": False, "access_log": False, "log_level": "warning"}
    server.run(host="127.0.0.1", port=port, **options)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
