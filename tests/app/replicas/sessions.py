"""Sessions whose steps a test sends to any of several servers."""

import time
from collections.abc import Mapping
from typing import Any

import httpx
import numpy as np

from benchmarks.chaos import Reference
from benchmarks.chaos.checker import check_answers
from benchmarks.chaos.record import MEMORY_SIZE, Track
from benchmarks.chaos.server import Server
from tests.app.harness import CHECKPOINTS

CHECKPOINT = CHECKPOINTS / "dnc-copy"
WIDTH = 10
PATIENCE = 30.0
"""Seconds within which a step is taken, and an answer comes."""


class Session:
    """A session of the test, with the record of its steps; server: where it is opened."""

    def __init__(self, server: Server) -> None:
        body = {"model": CHECKPOINT.name, "memory_size": MEMORY_SIZE}
        answer = httpx.post(f"{server.url}/sessions", json=body, timeout=PATIENCE)
        assert answer.status_code == 201, answer.text
        self.track = Track(answer.json()["id"])
        self.refusals: list[Mapping[str, Any]] = []

    def post(self, server: Server) -> httpx.Response:
        """Send the next step to a server, as a client that knows where the session is."""
        number = self.track.head
        inputs = np.random.default_rng(number).random((1, WIDTH), np.float32)
        body = {"inputs": inputs.tolist(), "if_step": number}
        answer = httpx.post(f"{server.url}/sessions/{self.track.id}/steps", json=body, timeout=PATIENCE)
        if answer.status_code == 200:
            assert answer.json()["step"] == number + 1
            self.track.extend(inputs, np.array(answer.json()["outputs"], np.float32))
        return answer

    def step(self, server: Server) -> None:
        """Have a server take the next step, as soon as it does not refuse it for now."""
        end = time.monotonic() + PATIENCE
        while (answer := self.post(server)).status_code != 200:
            assert answer.status_code == 503, answer.text
            assert answer.headers["Retry-After"]
            assert time.monotonic() < end, answer.text
            self.refusals.append(answer.json())
            time.sleep(0.1)

    def check(self, server: Server, reference: Reference) -> None:
        """Compare all answers with an undisturbed run, and the session on a server with them."""
        check_answers([self.track], reference)
        info = httpx.get(f"{server.url}/sessions/{self.track.id}", timeout=PATIENCE).json()
        assert (info["step"], info["latest"]) == (self.track.head, self.track.head)
