"""The Differentiable Neural Computer (Graves et al., Nature 538, 2016)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from models import addressing
from models.cells import CellConfig, LSTMConfig, build_cell
from models.config import ConfigError, require_at_least
from models.contract import MemoryModel, ModelConfig, Trace, checked_memory_size
from models.interface import InterfaceLayer, hold
from models.state import map_leaves

STRENGTHS: dict[str, Callable[[Tensor], Tensor]] = {"oneplus": addressing.oneplus, "softplus": functional.softplus}


@dataclass(frozen=True)
class DNCConfig(ModelConfig):
    """memory_size is N, the number of memory locations; word_size is W. No weight depends on memory_size.

    strength is the activation of key strengths: oneplus (at least 1, the paper's) or softplus (positive, as DeepMind's
    code has it). clip bounds the controller's state and the outputs to [-clip, clip], as DeepMind's code does; 0 means
    no bound.

    Improvements published since, which combine. Csordas & Schmidhuber 2019: with masking, each key comes with a mask
    of the parts of a word to compare; with deallocation, a freed location is emptied; with
    link_sharpening, the weightings along the links are sharpened. Franke et al. 2018 (ADNC): bypass_dropout is the
    rate at which the controller's outputs are dropped, in training, on their way past the memory to the outputs; and
    links may be none: heads then read by content only. Rae et al. 2016 (SDNC): sparse links keep, in each row of
    the link matrix, its links_per_slot largest entries. Le et al. 2020 (NSM): programs is the number of interface
    layers, stored under keys of program_key_size numbers, of which each step takes a mixture; with 1, there is one.
    Chiang & Cholak 2022: with look_up_scaling, key strengths grow with log N where N differs from memory_size.
    """

    memory_size: int = 32
    word_size: int = 16
    read_heads: int = 1
    write_heads: int = 1
    controller: CellConfig = field(default_factory=LSTMConfig)
    strength: Literal["oneplus", "softplus"] = "oneplus"
    clip: float = 20.0
    masking: bool = False
    deallocation: bool = False
    link_sharpening: bool = False
    bypass_dropout: float = 0.0
    links: Literal["dense", "sparse", "none"] = "dense"
    links_per_slot: int = 8
    programs: int = 1
    program_key_size: int = 8
    look_up_scaling: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, 1, "memory_size", "word_size", "read_heads", "write_heads", "links_per_slot")
        require_at_least(self, 1, "programs", "program_key_size")
        require_at_least(self, 0, "clip")
        if not 0 <= self.bypass_dropout < 1:
            raise ConfigError(f"DNCConfig.bypass_dropout must be in [0, 1), got {self.bypass_dropout}")
        if self.links == "sparse" and self.links_per_slot > self.memory_size:
            least = self.links_per_slot
            raise ConfigError(f"DNCConfig.memory_size must be at least {least}, links_per_slot, got {self.memory_size}")
        if self.link_sharpening and self.links == "none":
            raise ConfigError("DNCConfig.link_sharpening needs links, got links = 'none'")


class DNCState(NamedTuple):
    controller: Any
    memory: Tensor
    """M: [B, N, W]"""
    read_weights: Tensor
    """w^r: [B, R, N]"""
    write_weights: Tensor
    """w^w: [B, V, N]"""
    read_vectors: Tensor
    """r: [B, R, W]"""
    usage: Tensor
    """u: [B, N], in [0, 1]"""
    link: Tensor | None
    """L: [B, V, N, N]; with sparse links the K largest entries of each row: [B, V, N, K]"""
    link_columns: Tensor | None
    """The columns of those entries, with sparse links only: [B, V, N, K], whole numbers"""
    precedence_weights: Tensor | None
    """p: [B, V, N]"""


class Links(NamedTuple):
    """The fields of DNCState that hold the order of writing."""

    link: Tensor | None
    link_columns: Tensor | None
    precedence_weights: Tensor | None


class DNCControls(NamedTuple):
    """The interface vector xi, cut and activated."""

    read_keys: Tensor
    """k^r: [B, R, W]"""
    read_strengths: Tensor
    """beta^r: [B, R], at least 1, or positive with softplus"""
    write_keys: Tensor
    """k^w: [B, V, W]"""
    write_strengths: Tensor
    """beta^w: [B, V], at least 1, or positive with softplus"""
    erase_vectors: Tensor
    """e: [B, V, W], in [0, 1]"""
    write_vectors: Tensor
    """v: [B, V, W]"""
    free_gates: Tensor
    """f: [B, R], in [0, 1]"""
    allocation_gate: Tensor
    """g^a: [B, V], in [0, 1]"""
    write_gate: Tensor
    """g^w: [B, V], in [0, 1]"""
    read_modes: Tensor | None
    """pi: [B, R, 2 V + 1], summing to 1: backward per write head, forward per write head, content"""
    read_masks: Tensor | None
    """m^r: [B, R, W], in [0, 1]"""
    write_masks: Tensor | None
    """m^w: [B, V, W], in [0, 1]"""
    forward_sharpness: Tensor | None
    """s^f: [B, R, V], at least 1"""
    backward_sharpness: Tensor | None
    """s^b: [B, R, V], at least 1"""
    program_weights: Tensor | None
    """The shares of the programs, if there are several: [B, P], summing to 1"""


class DNC(MemoryModel[DNCState]):
    """A controller with a memory that it allocates, frees, and reads by content or in the order of writing."""

    def __init__(self, config: DNCConfig) -> None:
        super().__init__(config)
        self.config = config
        word, reads, writes = config.word_size, config.read_heads, config.write_heads
        self.controller = build_cell(self.encoded_size + reads * word, config.controller)
        parts: dict[str, tuple[int, ...]] = {
            "read_keys": (reads, word),
            "read_strengths": (reads,),
            "write_keys": (writes, word),
            "write_strengths": (writes,),
            "erase_vectors": (writes, word),
            "write_vectors": (writes, word),
            "free_gates": (reads,),
            "allocation_gate": (writes,),
            "write_gate": (writes,),
        }
        if config.links != "none":
            parts |= {"read_modes": (reads, 2 * writes + 1)}
        if config.masking:
            parts |= {"read_masks": (reads, word), "write_masks": (writes, word)}
        if config.link_sharpening:
            parts |= {"forward_sharpness": (reads, writes), "backward_sharpness": (reads, writes)}
        self.interface = InterfaceLayer(self.controller.output_size, parts, config.programs, config.program_key_size)
        self.output = nn.Linear(self.controller.output_size + reads * word, config.output_size)

    @property
    def memory_size(self) -> int:
        return self.config.memory_size

    def initial_state(self, batch_size: int, memory_size: int | None = None) -> DNCState:
        """Return an empty memory: everything is zero."""
        config = self.config
        size, word = checked_memory_size(config, memory_size), config.word_size
        reads, writes = config.read_heads, config.write_heads

        def zeros(*shape: int) -> Tensor:
            return self.output.weight.new_zeros(batch_size, *shape)

        linked, sparse, kept = config.links != "none", config.links == "sparse", config.links_per_slot
        columns = zeros(writes, size, kept) + torch.arange(kept, device=self.output.weight.device)
        return DNCState(
            controller=self.controller.initial_state(batch_size),
            memory=zeros(size, word),
            read_weights=zeros(reads, size),
            write_weights=zeros(writes, size),
            read_vectors=zeros(reads, word),
            usage=zeros(size),
            link=zeros(writes, size, kept if sparse else size) if linked else None,
            link_columns=columns if sparse else None,
            precedence_weights=zeros(writes, size) if linked else None,
        )

    def _step(self, inputs: Tensor, state: DNCState) -> tuple[Tensor, DNCState, Trace]:
        # Controller: h_t from the input and the read vectors of the previous step
        seen = torch.cat([self.encode(inputs), state.read_vectors.flatten(1)], 1)
        hidden, controller = self.controller(seen, state.controller)
        hidden, controller = self._clip(hidden), map_leaves(self._clip, controller)
        controls = self._controls(hidden)

        # Write: mix free locations with those of similar content, then erase and add
        retention = addressing.retention(controls.free_gates, state.read_weights)
        usage = addressing.usage(state.usage, state.write_weights, retention)
        allocation = addressing.write_allocation_weights(usage, controls.allocation_gate * controls.write_gate)
        write_content = self._content(state.memory, controls.write_keys, controls.write_strengths, controls.write_masks)
        write_weights = addressing.write_weights(
            write_content, allocation, controls.allocation_gate, controls.write_gate
        )
        kept = addressing.deallocate(state.memory, retention) if self.config.deallocation else state.memory
        memory = addressing.write(kept, write_weights, controls.erase_vectors, controls.write_vectors)

        # Read: by content, or forward or backward along the order of writing
        read_content = self._content(memory, controls.read_keys, controls.read_strengths, controls.read_masks)
        links, read_weights, directions = self._next_links(state, write_weights), read_content, {}
        if controls.read_modes is not None:
            forward, backward = self._directions(links, state.read_weights, controls)
            read_weights = addressing.read_weights(read_content, forward, backward, controls.read_modes)
            directions = {"forward_weights": forward, "backward_weights": backward}
        read_vectors = addressing.read(memory, read_weights)

        bypass = functional.dropout(hidden, self.config.bypass_dropout, self.training)
        outputs = self._clip(self.output(torch.cat([bypass, read_vectors.flatten(1)], 1)))
        next_state = DNCState(controller, memory, read_weights, write_weights, read_vectors, usage, *links)
        weightings = {
            "usage": usage,
            "retention": retention,
            "allocation_weights": allocation,
            "write_content_weights": write_content,
            "read_content_weights": read_content,
        }
        return outputs, next_state, _trace(next_state, controls) | weightings | directions

    def _content(self, memory: Tensor, keys: Tensor, strengths: Tensor, masks: Tensor | None) -> Tensor:
        if masks is None:
            similarities = addressing.cosine_similarity(memory, keys)
        else:
            similarities = addressing.masked_cosine_similarity(memory, keys, masks)
        if self.config.look_up_scaling:
            strengths = addressing.scaled_strengths(strengths, similarities, self.config.memory_size)
        return addressing.content_weights(similarities, strengths)

    def _next_links(self, state: DNCState, write_weights: Tensor) -> Links:
        if state.link is None or state.precedence_weights is None:
            return Links(None, None, None)
        link, columns, before = state.link, state.link_columns, state.precedence_weights
        if columns is None:
            link = addressing.link(link, before, write_weights)
        else:
            link, columns = addressing.sparse_link(link, columns, before, write_weights)
        return Links(link, columns, addressing.precedence(before, write_weights))

    def _directions(self, links: Links, read_weights: Tensor, controls: DNCControls) -> tuple[Tensor, Tensor]:
        """Return the weightings forward and backward along the links: [B, R, V, N] each."""
        assert links.link is not None
        if links.link_columns is None:
            forward, backward = addressing.directional_weights(links.link, read_weights)
        else:
            forward, backward = addressing.sparse_directional_weights(links.link, links.link_columns, read_weights)
        if controls.forward_sharpness is not None and controls.backward_sharpness is not None:
            forward = addressing.sharpen_direction(forward, controls.forward_sharpness)
            backward = addressing.sharpen_direction(backward, controls.backward_sharpness)
        return forward, backward

    def _controls(self, hidden: Tensor) -> DNCControls:
        config, parts = self.config, self.interface.cut(hidden)
        strength = STRENGTHS[config.strength]
        controls = DNCControls(
            read_keys=parts["read_keys"],
            read_strengths=strength(parts["read_strengths"]),
            write_keys=parts["write_keys"],
            write_strengths=strength(parts["write_strengths"]),
            erase_vectors=torch.sigmoid(parts["erase_vectors"]),
            write_vectors=parts["write_vectors"],
            free_gates=torch.sigmoid(parts["free_gates"]),
            allocation_gate=torch.sigmoid(parts["allocation_gate"]),
            write_gate=torch.sigmoid(parts["write_gate"]),
            read_modes=torch.softmax(parts["read_modes"], dim=2) if "read_modes" in parts else None,
            read_masks=torch.sigmoid(parts["read_masks"]) if config.masking else None,
            write_masks=torch.sigmoid(parts["write_masks"]) if config.masking else None,
            forward_sharpness=addressing.oneplus(parts["forward_sharpness"]) if config.link_sharpening else None,
            backward_sharpness=addressing.oneplus(parts["backward_sharpness"]) if config.link_sharpening else None,
            program_weights=parts.get("program_weights"),
        )
        return hold(controls, self._force)

    def _clip(self, values: Tensor) -> Tensor:
        return values.clamp(-self.config.clip, self.config.clip) if self.config.clip else values


def _trace(state: DNCState, controls: DNCControls) -> Trace:
    """Return the part of the trace that a step's next state and its controls have."""
    trace = {name: values for name, values in controls._asdict().items() if values is not None}
    return trace | {name: getattr(state, name) for name in ("read_weights", "write_weights", "read_vectors")}
