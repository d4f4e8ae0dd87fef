"""LitServe and the torch model: python -m benchmarks.floors.litserve CHECKPOINT SESSIONS

One worker, whose process has the states; batches of all requests that come within BATCH_TIMEOUT; ZeroMQ between the
processes (`fast_queue`). The session is named in the body, as LitServe hands no more of a request to the worker.
"""

import signal
import sys
from pathlib import Path
from typing import Any

import litserve
import torch

from benchmarks.floors import free_port
from benchmarks.floors.batches import Batches

BATCH_TIMEOUT = 0.001
"""Seconds. With 0 the worker asks its queue again and again, and takes a core for it."""


class Steps(litserve.LitAPI):  # type: ignore[misc]
    """A step of each session of a batch."""

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


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # or its processes would go on
    steps = Steps(Path(sys.argv[1]), max_batch_size=int(sys.argv[2]), batch_timeout=BATCH_TIMEOUT)
    server = litserve.LitServer(steps, accelerator="cpu", devices=1, workers_per_device=1, fast_queue=True)
    server.run(host="127.0.0.1", port=free_port(), num_api_servers=1, generate_client_file=False, access_log=False)
