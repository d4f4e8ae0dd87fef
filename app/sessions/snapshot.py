"""A session in a file: a safetensors file of its state, which says of which model it is and at which step.

It is what a server keeps of a session, what leaves one and what another takes, whatever its back end or device.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from app.backends.base import Array, Spec
from app.errors import InvalidSnapshot

FORMAT, FORCED_FORMAT = "1", "2"
"""The formats of a snapshot; the second forces gates, so servers that know the first alone refuse it."""

LARGEST = 2**53
"""The largest step and the largest number of memory locations in a snapshot."""

LARGE = 2**17
"""Bytes from which a snapshot is made or read beside the event loop: one request may need those of many sessions."""

COPIES = 2
"""How often a state is in memory while it is put into a file: the state, and the file."""

ROUNDING = 1e-5
"""How far back ends may differ in the state before the first step."""

MAX_HEADER_BYTES = 2**16
"""Bytes of a snapshot's header, at most: what it takes beside the state. A state has some ten leaves."""

PREFIX = "engram."
DIGEST = f"{PREFIX}digest"


@dataclass(frozen=True)
class Snapshot:
    """The state of a session of a model after `step` steps: its leaves by name, without a batch axis.

    fingerprint: what the model is known by, whatever it is called; memory_size: None for a model without a memory.
    force: the gates that the session holds at values (`app.forces`), None where all are free.
    """

    model: str
    fingerprint: str
    memory_size: int | None
    step: int
    state: Mapping[str, Array]
    force: str | None = None

    def to_bytes(self) -> bytes:
        fields = {
            "snapshot": FORMAT if self.force is None else FORCED_FORMAT,
            "model": self.model,
            "fingerprint": self.fingerprint,
            "memory_size": json.dumps(self.memory_size),
            "step": str(self.step),
        }
        if self.force is not None:
            fields["force"] = self.force
        metadata = {f"{PREFIX}{name}": value for name, value in fields.items()}
        state = {name: np.asarray(leaf, leaf.dtype.newbyteorder("<"), order="C") for name, leaf in self.state.items()}
        return save(state, {**metadata, DIGEST: _digest(metadata, state)})

    @classmethod
    def from_bytes(cls, data: bytes) -> "Snapshot":
        """Raises InvalidSnapshot where it is none, of another version, or not as it was written."""
        _check_header(data)
        try:
            state, metadata = load(data), _metadata(data)
        except (SafetensorError, ValueError, KeyError, RecursionError) as error:
            raise _invalid(f"this is no safetensors file: {error}") from None
        version = metadata.get(f"{PREFIX}snapshot")
        if version not in (FORMAT, FORCED_FORMAT):
            raise _invalid(f"it is of format {version}, but this server reads formats {FORMAT} and {FORCED_FORMAT}")
        digest = metadata.pop(DIGEST, None)
        if digest != _digest(metadata, state):
            raise _invalid("it is damaged, or was changed: it does not have the digest that it was written with")
        fields = {name.removeprefix(PREFIX): value for name, value in metadata.items()}
        try:
            size = fields["memory_size"]
            memory_size = None if size == "null" else _whole_number("memory_size", size, 1)
            step = _whole_number("step", fields["step"], 0)
            force = fields["force"] if version == FORCED_FORMAT else None
            return cls(fields["model"], fields["fingerprint"], memory_size, step, state, force)
        except KeyError as error:
            raise _invalid(f"its metadata has no {PREFIX}{error.args[0]}") from None

    def check(self, spec: Spec) -> None:
        """Raise InvalidSnapshot unless this is a state of the model that `spec` is of, all of it finite."""
        self.check_shapes(spec)
        for name, leaf in self.state.items():
            if not np.isfinite(leaf).all():
                place = np.unravel_index(np.isfinite(leaf).argmin(), leaf.shape)
                index = "".join(f"[{number}]" for number in place)
                raise _invalid(f"its state has {leaf[place]} at {name}{index}, and only finite numbers can be stepped")
            if leaf.dtype == bool and (leaf.view(np.uint8) > 1).any():
                raise _invalid(f"its state has a byte that is neither 0 nor 1 at {name}, which is of bool")

    def check_shapes(self, spec: Spec) -> None:
        """Raise InvalidSnapshot unless memory size, forced gates and leaves are those that `spec` has."""
        if self.memory_size != spec.memory_size:
            raise _invalid(
                f"{PREFIX}memory_size is {json.dumps(self.memory_size)}, but {self.model} has "
                f"{spec.memory_size or 'no'} memory locations"
            )
        if self.force != spec.force:
            raise _invalid(f"{PREFIX}force is {self.force}, but {self.model} is to force {spec.force}")
        came = {name: list(leaf.shape) for name, leaf in self.state.items()}
        if came != spec.state or any(leaf.dtype != spec.dtype(name) for name, leaf in self.state.items()):
            dtypes = {name: str(spec.dtype(name)) for name in spec.state}
            due = "float32" if {*dtypes.values()} <= {"float32"} else str(dtypes)
            raise _invalid(f"its state is {came}, but that of {self.model} is {spec.state}, of {due}")

    def check_first(self, first: Mapping[str, Array]) -> None:
        """Raise InvalidSnapshot where this, a snapshot of step 0, has another state than that before the first step."""
        for name, leaf in first.items():
            if not np.allclose(self.state[name], leaf, rtol=0, atol=ROUNDING):
                raise _invalid(f"it says step 0, but its {name} is not that of {self.model} before the first step")


def _check_header(data: bytes) -> None:
    """Raise InvalidSnapshot where the header is larger than any of ours, before it is read."""
    size = int.from_bytes(data[:8], "little")
    if size > MAX_HEADER_BYTES:
        raise _invalid(f"this is no safetensors file of a session: its header would be of {size} bytes")


def _metadata(data: bytes) -> dict[str, str]:
    """Return the metadata in the header of a safetensors file, which the library has found to be one."""
    size = int.from_bytes(data[:8], "little")
    metadata: dict[str, str] | None = json.loads(data[8 : 8 + size]).get("__metadata__")
    return metadata or {}


def _whole_number(name: str, text: str, least: int) -> int:
    """Return a number of a snapshot's metadata. Raises InvalidSnapshot."""
    if not re.fullmatch("[0-9]{1,16}", text) or not least <= int(text) <= LARGEST:
        shown = text if len(text) <= 40 else f"{text[:37]}..."
        raise _invalid(f"{PREFIX}{name} must be a whole number from {least} to {LARGEST}, got {shown!r}")
    return int(text)


def _digest(metadata: Mapping[str, str], state: Mapping[str, Any]) -> str:
    """Return the SHA-256 of everything that a snapshot says."""
    shapes = {name: [str(leaf.dtype), *leaf.shape] for name, leaf in state.items()}
    digest = hashlib.sha256(json.dumps([dict(metadata), shapes], sort_keys=True).encode())
    for name in sorted(state):
        digest.update(np.ascontiguousarray(state[name]).data)
    return digest.hexdigest()


def _invalid(reason: str) -> InvalidSnapshot:
    return InvalidSnapshot(
        f"the snapshot cannot be used: {reason}",
        place="body",
        expected="what GET /sessions/{session}/snapshot gave",
    )
