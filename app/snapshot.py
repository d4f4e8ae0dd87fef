"""A session in a file: a safetensors file of its state, which says of which model it is and at which step.

It is what a server keeps of a session, what leaves one and what another takes, whatever its back end or device.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from app.backends.base import Array, Shapes
from app.errors import InvalidSnapshot

FORMAT = "1"
LARGEST_STEP = 2**53
LARGE = 2**20
"""Bytes from which a snapshot is made or read beside the event loop, not in it."""

PREFIX = "engram."
DIGEST = f"{PREFIX}digest"


@dataclass(frozen=True)
class Snapshot:
    """The state of a session of a model after `step` steps: its leaves by name, float32, without a batch axis.

    fingerprint: what the model is known by, whatever it is called; memory_size: None for a model without a memory.
    """

    model: str
    fingerprint: str
    memory_size: int | None
    step: int
    state: Mapping[str, Array]

    def to_bytes(self) -> bytes:
        told = {
            "snapshot": FORMAT,
            "model": self.model,
            "fingerprint": self.fingerprint,
            "memory_size": json.dumps(self.memory_size),
            "step": str(self.step),
        }
        metadata = {f"{PREFIX}{name}": value for name, value in told.items()}
        state = {name: np.ascontiguousarray(leaf, "<f4") for name, leaf in self.state.items()}
        return save(state, {**metadata, DIGEST: _digest(metadata, state)})

    @classmethod
    def from_bytes(cls, data: bytes) -> "Snapshot":
        """Raises InvalidSnapshot where it is none, of another version, or not as it was written."""
        try:
            state, metadata = load(data), _metadata(data)
        except (SafetensorError, ValueError, KeyError, RecursionError) as error:
            raise _invalid(f"this is no safetensors file: {error}") from None
        version = metadata.get(f"{PREFIX}snapshot")
        if version != FORMAT:
            raise _invalid(f"it is of format {version}, but this server reads format {FORMAT}")
        digest = metadata.pop(DIGEST, None)
        if digest != _digest(metadata, state):
            raise _invalid("it is damaged, or was changed: it does not have the digest that it was written with")
        told = {name.removeprefix(PREFIX): value for name, value in metadata.items()}
        try:
            memory_size, step = json.loads(told["memory_size"]), int(told["step"])
            if not 0 <= step <= LARGEST_STEP or type(memory_size) not in (int, type(None)):
                raise ValueError(f"memory_size {memory_size!r}, step {step}")
            return cls(told["model"], told["fingerprint"], memory_size, step, state)
        except (KeyError, ValueError) as error:
            raise _invalid(f"its metadata cannot be used: {error!r}") from None

    def check_shapes(self, expected: Shapes) -> None:
        """Raise InvalidSnapshot unless the state's leaves are of these names and shapes."""
        came = {name: list(leaf.shape) for name, leaf in self.state.items()}
        if came != expected or any(leaf.dtype != np.float32 for leaf in self.state.values()):
            raise _invalid(f"its state is {came}, but that of {self.model} is {expected}, of float32")


def _metadata(data: bytes) -> dict[str, str]:
    """Return the metadata in the header of a safetensors file."""
    size = int.from_bytes(data[:8], "little")
    metadata: dict[str, str] = json.loads(data[8 : 8 + size]).get("__metadata__", {})
    return metadata


def _digest(metadata: Mapping[str, str], state: Mapping[str, Any]) -> str:
    """Return the SHA-256 of everything that a snapshot says."""
    shapes = {name: [str(leaf.dtype), *leaf.shape] for name, leaf in state.items()}
    digest = hashlib.sha256(json.dumps([dict(metadata), shapes], sort_keys=True).encode())
    for name in sorted(state):
        digest.update(np.ascontiguousarray(state[name]).tobytes())
    return digest.hexdigest()


def _invalid(reason: str) -> InvalidSnapshot:
    return InvalidSnapshot(
        f"the snapshot cannot be used: {reason}",
        place="body",
        expected="what GET /sessions/{session}/snapshot gave",
    )
