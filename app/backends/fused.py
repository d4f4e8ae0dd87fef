"""Steps computed in place by the fused kernels, on the CPU: no torch needed."""

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from app.backends.base import Array, RowsFailed, Slots, are_ordinary, failed_rows
from app.backends.graph import StepGraph
from kernels.step import FusedStep
from kernels.support import NoKernel, is_bounded
from models.manifest import ManifestError, check_header, weights_file

LARGEST_ORDINARY = 1e30
"""Inputs up to this cannot overflow in a model whose controller is bounded."""

LEAVES = ("read_weights", "write_weights", "read_vectors", "usage")
"""Traces that are leaves of the state: after the step, or before it if the heads act before the controller."""


class FusedBackend:
    """The arena belongs to the kernels, which change the states in place.

    The ONNX graph describes the model and computes the state before the first step, but no other step.
    """

    kind = "fused"
    device = "cpu"

    def __init__(self, directory: Path, capacity: int, threads: int = 1) -> None:
        """Load a checkpoint; capacity: slots that the arena has at most; threads: of one step.

        Raises ManifestError if the checkpoint cannot be loaded, or no kernel supports it.
        """
        self._graph = StepGraph(directory)
        self.spec, manifest = self._graph.spec, self._graph.manifest
        self._kind, self._config = manifest.kind, manifest.config
        path = weights_file(directory, manifest)
        try:
            check_header(path)
            self._weights = load_file(path)
            self._capacity, self._threads = capacity, threads
            self._clear()
            self._bounded = is_bounded(self._config)
        except (SafetensorError, NoKernel) as error:
            raise ManifestError(f"{path}: {error}") from error
        except (KeyError, ValueError, IndexError, TypeError) as error:
            raise ManifestError(f"{path}: these weights are not those of the config: {error!r}") from error

    @property
    def spare(self) -> int:
        return self.slots.spare

    def resized(self, memory_size: int) -> "FusedBackend":
        other = copy.copy(self)
        other.spec = self.spec.resized(memory_size)
        other._clear()
        return other

    def forced(self, force: str | None) -> "FusedBackend":
        other = copy.copy(self)
        other.spec = self.spec.forced(force)
        other._fused = self._fused.forced(other.spec.gates)
        other.slots = Slots(self._capacity)
        return other

    def open(self, state: Mapping[str, Array] | None = None) -> int:
        return self.slots.open(self._fused.grow, lambda slot: self.write(slot, state))

    def step(self, slots: Sequence[int], inputs: Array, trace: Collection[str] = ()) -> tuple[Array, dict[str, Array]]:
        self.slots.check(slots)
        before = {row: self._fused.read(slots[row]) for row in self._risky_rows(inputs)}
        used = {name: self._fused.leaf(name, slots) for name in trace if name in self._fused.used_before}
        try:
            outputs, heads = self._fused.step(slots, inputs, [name for name in trace if name not in LEAVES])
            traces = {name: used[name] if name in used else self._trace(name, slots, heads.trace) for name in trace}
            failed = self._failed_rows(slots, outputs, list(before))
            for row in failed:
                self._undo(slots[row], before.get(row))
        except Exception as error:
            raise self.slots.lost_batch(slots) from error
        if failed:
            raise RowsFailed(failed, outputs, traces, lost=failed - before.keys())
        return outputs, traces

    def run(self, slots: Sequence[int], inputs: Array) -> Array:
        if not self._bounded or self._risky_rows(inputs):
            return self.slots.run_by_steps(self.step, slots, inputs, self.spec.output_size)
        self.slots.check(slots)
        try:
            outputs = self._fused.run(slots, inputs.swapaxes(0, 1)).swapaxes(0, 1)
            failed = failed_rows(outputs)
            self.slots.lose(slots[row] for row in failed)
        except Exception as error:
            raise self.slots.lost_batch(slots) from error
        if failed:
            at = {row: int(np.isfinite(outputs[row]).all(axis=1).argmin()) for row in failed}
            raise RowsFailed(failed, outputs, {}, failed, at)
        return outputs

    def may_fail(self, inputs: Array) -> bool:
        return not self._bounded or bool(self._risky_rows(inputs))

    def prompt(self) -> "FusedBackend":
        return self

    def read(self, slot: int) -> dict[str, Array]:
        self.slots.check([slot])
        return self._fused.read(slot)

    def write(self, slot: int, state: Mapping[str, Array] | None) -> None:
        with self.slots.replacing(slot):
            self._fused.write(slot, self._initial if state is None else state)

    def close(self, slot: int) -> None:
        self.slots.give_back(slot)

    def cool(self) -> None:
        self.slots.cool(self._fused.leaves)

    def _risky_rows(self, inputs: Array) -> list[int]:
        """Return the rows whose step may overflow from a state that the model can reach."""
        if not self._bounded:
            return list(range(len(inputs)))
        if are_ordinary(inputs):
            return []
        ordinary = np.abs(inputs) <= LARGEST_ORDINARY
        return [] if ordinary.all() else np.flatnonzero(~ordinary.reshape(len(inputs), -1).all(axis=1)).tolist()

    def _failed_rows(self, slots: Sequence[int], outputs: Array, risky: Sequence[int]) -> set[int]:
        """Return the rows whose outputs are not finite, or, among `risky` rows, whose states are not."""
        failed = set(failed_rows(outputs))
        if risky:
            leaves = (self._fused.leaf(name, [slots[row] for row in risky]) for name in self.spec.state)
            failed.update(risky[row] for row in failed_rows(*leaves))
        return failed

    def _undo(self, slot: int, before: Mapping[str, Array] | None) -> None:
        """Restore the state before a step in its slot; without a copy of it, mark the state as lost."""
        if before is None:
            self.slots.lose([slot])
        else:
            self._fused.write(slot, before)

    def _trace(self, name: str, slots: Sequence[int], of_heads: Callable[[str], Array]) -> Array:
        return self._fused.leaf(name, slots) if name in LEAVES else of_heads(name)

    def _clear(self) -> None:
        """Start with an empty arena of this memory size, with these forced gates."""
        self._initial = self._graph.first_state(self.spec)
        self._fused = FusedStep(
            self._kind, self._config, self._weights, self.spec.state, self.spec.memory_size, self._threads
        )
        if self.spec.force is not None:
            self._fused = self._fused.forced(self.spec.gates)
        self.slots = Slots(self._capacity)
