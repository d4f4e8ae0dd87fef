"""Servers with a planted leak, or none: `engram serve` in a process whose back ends, or checks of inputs, were changed.

shared buffer      a step adds some of the inputs of the step before it, of any session
shared restoring   a state that is put into a slot has some of the state put into one before
not cleared        a slot that is opened again begins with the state that the last session left in it
late refusal       inputs that are not finite are refused by the step, one session at a time
"""

import importlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import app.api.many
from benchmarks.server import Server, listening, serve_words
from engram.main import main
from tests.forks import Forked, write_to

BACKENDS = {"fused": "FusedBackend", "onnx": "OnnxBackend", "torch": "TorchBackend"}


def share_buffer(backend: Any) -> None:
    step, buffer = backend.step, [0.0]

    def leaky(self, slots, inputs, trace=()):
        outputs, traces = step(self, slots, inputs, trace)
        left, buffer[0] = buffer[0], float(np.tanh(inputs.mean()))
        return outputs + np.float32(1e-3 * left), traces

    backend.step = leaky


def share_restoring(backend: Any) -> None:
    write, buffer = backend.write, {}

    def leaky(self, slot, state):
        if state is not None:
            mixed = {name: leaf + np.float32(1e-3) * buffer.get(name, leaf) for name, leaf in state.items()}
            buffer.update(state)
            state = mixed
        write(self, slot, state)

    backend.write = leaky


def leave_slots(backend: Any) -> None:
    write, used = backend.write, set()

    def leaky_open(self, state=None):
        return self.slots.open(self._grow, lambda slot: fill(self, slot, state))

    def fill(self, slot, state):
        if state is not None or (id(self), slot) not in used:
            write(self, slot, state)
        used.add((id(self), slot))

    backend.open = leaky_open


def refuse_late(_: Any) -> None:
    app.api.many.failed_rows = lambda *_: []


PLANTS: dict[str, Callable[[Any], None]] = {
    "shared buffer": share_buffer,
    "shared restoring": share_restoring,
    "not cleared": leave_slots,
    "late refusal": refuse_late,
}


def starting(plant: str | None = None) -> Callable[..., AbstractContextManager[Server]]:
    """Return a function that starts servers, as benchmarks.server.running_server does, with a planted leak."""

    @contextmanager
    def start(checkpoints: Path, data: Path, *flags: str) -> Iterator[Server]:
        with tempfile.NamedTemporaryFile() as log:
            process = Forked(serve, plant, serve_words(checkpoints, data, *flags), log.name)
            try:
                yield listening(process, Path(log.name))
            finally:
                process.terminate()
                process.wait()

    return start


def serve(plant: str | None, command: Sequence[str], log: str) -> None:
    """Change the back end that the command line names, and run the command; log: where its error output goes."""
    write_to(log)
    kind = command[command.index("--backend") + 1]
    module = importlib.import_module(f"app.backends.{kind}")
    if plant is not None:
        PLANTS[plant](getattr(module, BACKENDS[kind]))
    sys.exit(main(command))
