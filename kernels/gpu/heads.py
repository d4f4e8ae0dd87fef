"""The heads of DNC and NTM on a device: the launches of their kernels, one row of a batch after the other in arrays."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
import triton
from numpy.typing import NDArray
from torch import Tensor

from kernels.gpu.launch import Launch, options_for
from kernels.gpu.linear import product
from kernels.gpu.src import controls, dnc, ntm
from models.addressing import scaled_strengths
from models.contract import MemoryModel
from models.dnc import DNC
from models.interface import InterfaceLayer
from models.ntm import NTM

TILE_NUMBERS = 4096
"""Numbers of the memory that a program holds at once."""

LINK_NUMBERS = 8192
"""Numbers of a link matrix that a program holds at once."""

MOST_PARTS = 16
"""Programs that share a link matrix, at most: each leaves a sum for every column."""


class Heads(ABC):
    """The interface layer of a model and what follows it, until the memory is read.

    gates: forced ones, float64 by the names of their traces, NaN where an element is free.
    """

    grouped: ClassVar[str]
    """The part whose last axis has a softmax."""

    def __init__(
        self, interface: InterfaceLayer, activations: Mapping[str, int], gates: Mapping[str, NDArray[Any]]
    ) -> None:
        """activations: by the names of the parts of the interface vector; other parts are as they come."""
        self._interface = interface
        self._parts: dict[str, slice] = {}
        device = interface.weight.device
        codes, forced = np.zeros(interface.out_features, np.int32), np.full(interface.out_features, np.nan)
        start = 0
        for (name, _), size in zip(interface.parts.items(), interface.sizes, strict=True):
            self._parts[name] = own = slice(start, start + size)
            codes[own] = activations.get(name, controls.IDENTITY.value)
            if name in gates:
                forced[own] = gates[name].ravel()
            start += size
        self._codes = torch.tensor(codes, device=device)
        self._forced = torch.tensor(forced, dtype=torch.float32, device=device)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the arrays of a launch, without the batch axis."""
        return {"interface": (self._interface.out_features,), "controls": (self._interface.out_features,)}

    def control(self, name: str, rows: Mapping[str, Tensor]) -> Tensor | None:
        """Return an activated part of the interface vector, [B, ...]; None where there is no such part."""
        if name not in self._parts:
            return None
        return torch.unflatten(rows["controls"][:, self._parts[name]], 1, self._interface.parts[name])

    def launch(self, launch: Launch, hidden: Tensor) -> None:
        """Step the memory of all rows. hidden: the controller's outputs, [B, hidden_size]."""
        rows, interface = launch.rows, self._interface
        product(interface, launch.slots, rows["interface"], hidden)
        grouped = self._parts.get(self.grouped, slice(0, 0))
        size = interface.parts[self.grouped][-1] if self.grouped in self._parts else 1
        controls.activate[(len(hidden),)](
            rows["interface"], rows["controls"], self._codes, self._forced,
            X=interface.out_features, XP=triton.next_power_of_2(interface.out_features),
            FIRST=grouped.start, GROUPS=(grouped.stop - grouped.start) // size, GROUP=size,
            GP=triton.next_power_of_2(size), **options_for(interface.out_features),
        )  # fmt: skip
        self._launch_memory(launch)

    @abstractmethod
    def _launch_memory(self, launch: Launch) -> None:
        """Step the memory of all rows by their controls."""

    def _pointers(self, rows: Mapping[str, Tensor], *names: str) -> list[Tensor]:
        """Return tensors that begin with parts of the first row's controls; in place of a missing part, any tensor."""
        controls = rows["controls"]
        return [controls[:, self._parts[name]] if name in self._parts else controls for name in names]


class DNCHeads(Heads):
    """The memory of a DNC of `memory_size` locations."""

    grouped = "read_modes"

    def __init__(self, model: DNC, memory_size: int, gates: Mapping[str, NDArray[Any]]) -> None:
        self._config = config = model.config
        strength = {"oneplus": controls.ONEPLUS, "softplus": controls.SOFTPLUS}[config.strength].value
        sigmoids = "erase_vectors", "free_gates", "allocation_gate", "write_gate", "read_masks", "write_masks"
        activations = dict.fromkeys(sigmoids, controls.SIGMOID.value)
        activations |= {"read_strengths": strength, "write_strengths": strength}
        activations |= dict.fromkeys(("forward_sharpness", "backward_sharpness"), controls.ONEPLUS.value)
        super().__init__(model.interface, activations, gates)
        self._size, self._linked = memory_size, config.links == "dense"
        self._scale = scale_of(config.look_up_scaling, memory_size, config.memory_size)
        padded = triton.next_power_of_2(memory_size)
        self._tile = min(padded, max(1, LINK_NUMBERS // padded))
        tiles = triton.cdiv(memory_size, self._tile)
        self._parts_of_link = triton.cdiv(tiles, triton.cdiv(tiles, MOST_PARTS))
        self._tiles = triton.cdiv(tiles, self._parts_of_link)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        config, size = self._config, self._size
        reads, writes = config.read_heads, config.write_heads
        shapes: dict[str, tuple[int, ...]] = {
            "retention": (size,),
            "allocation_weights": (writes, size),
            "write_content_weights": (writes, size),
            "read_content_weights": (reads, size),
        }
        if self._linked:
            directions = (reads, writes, size)
            shapes |= {"forward_weights": directions, "backward_weights": directions}
            shapes |= {"backward_parts": (self._parts_of_link, *directions)}
        return super().shapes() | shapes

    def _launch_memory(self, launch: Launch) -> None:
        config, rows, leaves = self._config, launch.rows, launch.leaves
        size, batch = self._size, len(launch.slots)
        heads = {"R": config.read_heads, "V": config.write_heads}
        padded = {"RP": triton.next_power_of_2(config.read_heads), **tile_of(size, config.word_size)}
        masked = {"MASKED": config.masking, "DEALLOCATED": config.deallocation}
        stride, by_tile = rows["controls"].stride(0), options_for(padded["P"] * padded["C"])

        dnc.write[(batch,)](
            launch.slots, stride,
            *self._pointers(rows, "free_gates", "allocation_gate", "write_gate"),
            *self._pointers(rows, "write_keys", "write_strengths", "write_masks", "erase_vectors", "write_vectors"),
            *self._pointers(rows, "read_keys", "read_strengths", "read_masks"),
            leaves["memory"], leaves["usage"], leaves["write_weights"], leaves["read_weights"],
            rows["retention"], rows["allocation_weights"], rows["write_content_weights"], rows["read_content_weights"],
            self._scale, size, W=config.word_size, WP=triton.next_power_of_2(config.word_size), **heads, **padded,
            VP=triton.next_power_of_2(config.write_heads), **masked, **by_tile,
        )  # fmt: skip
        precedence = rows["controls"]  # without links, any tensor
        if self._linked:
            precedence, forward, parts = leaves["precedence_weights"], rows["forward_weights"], rows["backward_parts"]
            dnc.link[(batch, config.write_heads, self._parts_of_link)](
                launch.slots, leaves["link"], precedence, leaves["write_weights"], leaves["read_weights"],
                forward, parts, self._tiles, self._parts_of_link, size, **heads, P=padded["P"], RP=padded["RP"],
                TILE=self._tile, **options_for(self._tile * padded["P"]),
            )  # fmt: skip
            dnc.mix[(batch, config.read_heads)](
                launch.slots, stride, *self._pointers(rows, "read_modes", "forward_sharpness", "backward_sharpness"),
                leaves["read_weights"], rows["read_content_weights"], forward, parts, self._parts_of_link,
                rows["backward_weights"],
                size, **heads, P=padded["P"], SHARPENED=config.link_sharpening, **options_for(padded["P"]),
            )  # fmt: skip
        dnc.read[(batch,)](
            launch.slots, leaves["memory"], leaves["write_weights"], precedence, leaves["read_weights"],
            leaves["read_vectors"], rows["read_content_weights"],
            size, W=config.word_size, **heads, **padded, LINKED=self._linked, **by_tile,
        )  # fmt: skip


class NTMHeads(Heads):
    """The memory of an NTM of `memory_size` locations, whose heads act together."""

    grouped = "shift_weights"

    def __init__(self, model: NTM, memory_size: int, gates: Mapping[str, NDArray[Any]]) -> None:
        activations = {"key_strength": controls.SOFTPLUS.value, "sharpening": controls.ONEPLUS.value}
        activations |= dict.fromkeys(("keys", "add_vectors"), controls.TANH.value)
        activations |= dict.fromkeys(("interpolation_gate", "erase_vectors"), controls.SIGMOID.value)
        super().__init__(model.interface, activations, gates)
        self._config, self._size = model.config, memory_size
        self._scale = scale_of(model.config.look_up_scaling, memory_size, model.config.memory_size)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        weightings = "content_weights", "gated_weights", "shifted_weights"
        heads = self._config.read_heads + self._config.write_heads
        return super().shapes() | dict.fromkeys(weightings, (heads, self._size))

    def _launch_memory(self, launch: Launch) -> None:
        config, rows, leaves = self._config, launch.rows, launch.leaves
        reads, writes, batch = config.read_heads, config.write_heads, len(launch.slots)
        tile, stride = tile_of(self._size, config.word_size), rows["controls"].stride(0)
        by_tile = options_for(tile["P"] * tile["C"])
        weightings = rows["content_weights"], rows["gated_weights"], rows["shifted_weights"]

        ntm.look_up[(batch,)](
            launch.slots, stride, *self._pointers(rows, "keys", "key_strength"), leaves["memory"], weightings[0],
            self._scale, self._size, W=config.word_size, H=reads + writes,
            WP=triton.next_power_of_2(config.word_size), HP=triton.next_power_of_2(reads + writes), **tile,
            **by_tile,
        )  # fmt: skip
        ntm.move[(batch,)](
            launch.slots, stride, *self._pointers(rows, "interpolation_gate", "shift_weights", "sharpening"),
            *self._pointers(rows, "erase_vectors", "add_vectors"),
            leaves["memory"], leaves["read_weights"], leaves["write_weights"], leaves["read_vectors"], *weightings,
            self._size, W=config.word_size, R=reads, V=writes, S=config.shift_width,
            RP=triton.next_power_of_2(reads), VP=triton.next_power_of_2(writes), **tile, **by_tile,
        )  # fmt: skip


def tile_of(memory_size: int, word_size: int) -> dict[str, int]:
    """Return the sides of a tile of the memory: P locations, all of them, and C columns."""
    padded = triton.next_power_of_2(memory_size)
    return {"P": padded, "C": min(triton.next_power_of_2(word_size), max(1, TILE_NUMBERS // padded))}


def scale_of(is_scaled: bool, memory_size: int, trained: int) -> float:
    """Return the factor of key strengths for a memory of this size."""
    if not is_scaled:
        return 1.0
    return float(scaled_strengths(torch.ones(1, 1), torch.ones(1, 1, memory_size), trained))


def heads_of(model: MemoryModel[Any], memory_size: int | None, gates: Mapping[str, NDArray[Any]]) -> Heads | None:
    """Return the heads of a model with this number of memory locations; None for a model without a memory."""
    if isinstance(model, DNC):
        return DNCHeads(model, memory_size or model.memory_size, gates)
    if isinstance(model, NTM):
        return NTMHeads(model, memory_size or model.memory_size, gates)
    return None
