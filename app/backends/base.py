"""The contract of a back end, and the slots that all of them hand out."""

import heapq
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from app.errors import NonFiniteOutput
from models.manifest import Manifest, ManifestError

Array = NDArray[Any]


@dataclass(frozen=True)
class Spec:
    """What goes in and comes out; shapes are by name and without the batch axis."""

    input_size: int
    output_size: int
    state: dict[str, list[int]]
    trace: dict[str, list[int]]


def spec_of(manifest: Manifest) -> Spec:
    """Return what a checkpoint's manifest says of its inputs and outputs."""
    return Spec(manifest.input_size, manifest.output_size, manifest.state, manifest.trace)


class Backend(Protocol):
    """One model and the states of its sessions, each in a slot of its own. Used by one thread at a time."""

    spec: Spec
    kind: str
    device: str

    def open(self, state: Mapping[str, Array] | None = None) -> int:
        """Take a free slot, put `state` into it, or the state before the first step, and return its number."""

    def step(self, slots: Sequence[int], inputs: Array, trace: Collection[str] = ()) -> tuple[Array, dict[str, Array]]:
        """Advance distinct slots by one step, all of them, or none where it raises.

        inputs: float32 [len(slots), input_size]. Returns the outputs, float32 [len(slots), output_size], and the
        named traces. Raises NonFiniteOutput where an output is not finite.
        """

    def read(self, slot: int) -> dict[str, Array]:
        """Return a copy of the state in a slot: its leaves by name, without the batch axis."""

    def write(self, slot: int, state: Mapping[str, Array] | None) -> None:
        """Replace the state in a slot; None is the state before the first step."""

    def close(self, slot: int) -> None:
        """Give a slot back."""


class Slots:
    """The numbers of free slots; the lowest is taken first, so that the ones in use stay close together."""

    def __init__(self, capacity: int) -> None:
        self._free = list(range(capacity))
        self._taken: set[int] = set()

    def take(self) -> int:
        if not self._free:
            raise MemoryError(f"all {len(self._taken)} slots of the arena are taken")
        slot = heapq.heappop(self._free)
        self._taken.add(slot)
        return slot

    def give_back(self, slot: int) -> None:
        self._taken.remove(slot)
        heapq.heappush(self._free, slot)


def check_backend(backend: Backend) -> None:
    """Take one step and compare what comes with what the specification says. Raises ManifestError."""
    spec = backend.spec
    try:
        slot = backend.open()
        outputs, traces = backend.step([slot], np.zeros((1, spec.input_size), np.float32), list(spec.trace))
        state = backend.read(slot)
        backend.close(slot)
    except Exception as error:
        raise ManifestError(f"it cannot take a step: {type(error).__name__}: {error}") from error
    came = Spec(
        spec.input_size,
        outputs.shape[1],
        state={name: list(leaf.shape) for name, leaf in state.items()},
        trace={name: list(values.shape[1:]) for name, values in traces.items()},
    )
    if came != spec:
        raise ManifestError(f"its step gives {came}, but its manifest says {spec}")


def check_finite(outputs: Array) -> None:
    """Raise NonFiniteOutput unless every output is finite."""
    if not np.isfinite(outputs).all():
        raise NonFiniteOutput(
            "the model's outputs are not finite for this input; inputs of ordinary size avoid this",
            expected="finite outputs",
        )
