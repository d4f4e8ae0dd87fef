"""The Differentiable Neural Computer (Graves et al., Nature 538, 2016)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from models import addressing
from models.cells import CellConfig, LSTMConfig, build_cell
from models.config import require_at_least
from models.contract import Activation, MemoryModel, Trace
from models.interface import Interface
from models.state import map_leaves

STRENGTHS: dict[str, Callable[[Tensor], Tensor]] = {"oneplus": addressing.oneplus, "softplus": softplus}


@dataclass(frozen=True)
class DNCConfig:
    """memory_size is N, the number of slots; word_size is W. No weight depends on memory_size.

    strength is the activation of key strengths: oneplus (at least 1, the paper's) or softplus (positive, as DeepMind's
    code has it). clip bounds the controller's state and the outputs to [-clip, clip], as DeepMind's code does; 0 means
    no bound.
    """

    input_size: int
    output_size: int
    memory_size: int = 32
    word_size: int = 16
    read_heads: int = 1
    write_heads: int = 1
    controller: CellConfig = field(default_factory=LSTMConfig)
    strength: Literal["oneplus", "softplus"] = "oneplus"
    clip: float = 20.0
    output_activation: Activation = "identity"

    def __post_init__(self) -> None:
        require_at_least(self, 1, "input_size", "output_size", "memory_size", "word_size", "read_heads", "write_heads")
        require_at_least(self, 0, "clip")


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
    link: Tensor
    """L: [B, V, N, N]"""
    precedence_weights: Tensor
    """p: [B, V, N]"""


class Controls(NamedTuple):
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
    read_modes: Tensor
    """pi: [B, R, 2 V + 1], summing to 1: backward per write head, forward per write head, content"""


class DNC(MemoryModel[DNCState]):
    """A controller with a memory that it allocates, frees, and reads by content or in the order of writing."""

    def __init__(self, config: DNCConfig) -> None:
        super().__init__(config)
        self.config = config
        slots, word, reads, writes = config.memory_size, config.word_size, config.read_heads, config.write_heads
        self.memory_shape = (slots, word)
        self.controller = build_cell(config.input_size + reads * word, config.controller)
        self.interface = Interface(
            self.controller.output_size,
            {
                "read_keys": (reads, word),
                "read_strengths": (reads,),
                "write_keys": (writes, word),
                "write_strengths": (writes,),
                "erase_vectors": (writes, word),
                "write_vectors": (writes, word),
                "free_gates": (reads,),
                "allocation_gate": (writes,),
                "write_gate": (writes,),
                "read_modes": (reads, 2 * writes + 1),
            },
        )
        self.output = nn.Linear(self.controller.output_size + reads * word, config.output_size)

    def initial_state(self, batch_size: int) -> DNCState:
        """Return an empty memory: everything is zero."""
        slots, word = self.memory_shape
        reads, writes = self.config.read_heads, self.config.write_heads

        def zeros(*shape: int) -> Tensor:
            return self.output.weight.new_zeros(batch_size, *shape)

        return DNCState(
            controller=self.controller.initial_state(batch_size),
            memory=zeros(slots, word),
            read_weights=zeros(reads, slots),
            write_weights=zeros(writes, slots),
            read_vectors=zeros(reads, word),
            usage=zeros(slots),
            link=zeros(writes, slots, slots),
            precedence_weights=zeros(writes, slots),
        )

    def step(self, inputs: Tensor, state: DNCState) -> tuple[Tensor, DNCState, Trace]:
        # Controller: h_t from the input and from what was read at the step before
        hidden, controller = self.controller(torch.cat([inputs, state.read_vectors.flatten(1)], 1), state.controller)
        hidden, controller = self._clip(hidden), map_leaves(self._clip, controller)
        controls = self._controls(hidden)

        # Write: find free slots, mix them with those of similar content, erase and add
        usage = addressing.usage(state.usage, state.write_weights, controls.free_gates, state.read_weights)
        allocation = addressing.write_allocation_weights(usage, controls.allocation_gate * controls.write_gate)
        write_content = addressing.content_weights(state.memory, controls.write_keys, controls.write_strengths)
        write_weights = addressing.write_weights(
            write_content, allocation, controls.allocation_gate, controls.write_gate
        )
        memory = addressing.write(state.memory, write_weights, controls.erase_vectors, controls.write_vectors)

        # Read: by content, or forward or backward along the order of writing
        link = addressing.link(state.link, state.precedence_weights, write_weights)
        forward, backward = addressing.directional_weights(link, state.read_weights)
        read_content = addressing.content_weights(memory, controls.read_keys, controls.read_strengths)
        read_weights = addressing.read_weights(read_content, forward, backward, controls.read_modes)
        read_vectors = addressing.read(memory, read_weights)

        outputs = self._clip(self.output(torch.cat([hidden, read_vectors.flatten(1)], 1)))
        next_state = DNCState(
            controller=controller,
            memory=memory,
            read_weights=read_weights,
            write_weights=write_weights,
            read_vectors=read_vectors,
            usage=usage,
            link=link,
            precedence_weights=addressing.precedence(state.precedence_weights, write_weights),
        )
        trace = {
            "read_weights": read_weights,
            "write_weights": write_weights,
            "usage": usage,
            "allocation_weights": allocation,
            "allocation_gate": controls.allocation_gate,
            "write_gate": controls.write_gate,
            "free_gates": controls.free_gates,
            "read_modes": controls.read_modes,
        }
        return outputs, next_state, trace

    def _controls(self, hidden: Tensor) -> Controls:
        parts = self.interface.cut(hidden)
        strength = STRENGTHS[self.config.strength]
        return Controls(
            read_keys=parts["read_keys"],
            read_strengths=strength(parts["read_strengths"]),
            write_keys=parts["write_keys"],
            write_strengths=strength(parts["write_strengths"]),
            erase_vectors=torch.sigmoid(parts["erase_vectors"]),
            write_vectors=parts["write_vectors"],
            free_gates=torch.sigmoid(parts["free_gates"]),
            allocation_gate=torch.sigmoid(parts["allocation_gate"]),
            write_gate=torch.sigmoid(parts["write_gate"]),
            read_modes=torch.softmax(parts["read_modes"], dim=2),
        )

    def _clip(self, values: Tensor) -> Tensor:
        return values.clamp(-self.config.clip, self.config.clip) if self.config.clip else values
