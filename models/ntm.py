"""The Neural Turing Machine (Graves, Wayne & Danihelka, arXiv 1410.5401)."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from models import addressing
from models.cells import CellConfig, LSTMConfig, build_cell
from models.config import ConfigError, require_at_least
from models.contract import Activation, MemoryModel, Trace
from models.interface import Interface

INITIAL_MEMORY = 1e-6
"""Every memory entry before the first step."""


@dataclass(frozen=True)
class NTMConfig:
    """memory_size is N, the number of slots; word_size is W. No weight depends on memory_size.

    shift_width is S, the odd number of neighbouring slots that a head can move to: S = 3 allows -1, 0 and 1.
    """

    input_size: int
    output_size: int
    memory_size: int = 128
    word_size: int = 20
    read_heads: int = 1
    write_heads: int = 1
    shift_width: int = 3
    controller: CellConfig = field(default_factory=LSTMConfig)
    output_activation: Activation = "identity"

    def __post_init__(self) -> None:
        require_at_least(self, 1, "input_size", "output_size", "memory_size", "word_size", "read_heads", "write_heads")
        require_at_least(self, 1, "shift_width")
        if self.shift_width % 2 == 0:
            raise ConfigError(f"NTMConfig.shift_width must be odd, got {self.shift_width}")


class NTMState(NamedTuple):
    controller: Any
    memory: Tensor
    """M: [B, N, W]"""
    read_weights: Tensor
    """[B, R, N]"""
    write_weights: Tensor
    """[B, V, N]"""
    read_vectors: Tensor
    """r: [B, R, W]"""


class Controls(NamedTuple):
    """What the controller tells its heads: H = R + V of them, the read heads first."""

    keys: Tensor
    """k: [B, H, W], in [-1, 1]"""
    key_strength: Tensor
    """beta: [B, H], positive"""
    interpolation_gate: Tensor
    """g: [B, H], in [0, 1]"""
    shift_weights: Tensor
    """s: [B, H, S], summing to 1"""
    sharpening: Tensor
    """gamma: [B, H], at least 1"""
    erase_vectors: Tensor
    """e: [B, V, W], in [0, 1]"""
    add_vectors: Tensor
    """a: [B, V, W], in [-1, 1]"""


class NTM(MemoryModel[NTMState]):
    """A controller whose heads find slots by content and move from slot to slot by shifts."""

    def __init__(self, config: NTMConfig) -> None:
        super().__init__(config)
        self.config = config
        word, reads, writes = config.word_size, config.read_heads, config.write_heads
        heads = reads + writes
        self.controller = build_cell(config.input_size + reads * word, config.controller)
        self.interface = Interface(
            self.controller.output_size,
            {
                "keys": (heads, word),
                "key_strength": (heads,),
                "interpolation_gate": (heads,),
                "shift_weights": (heads, config.shift_width),
                "sharpening": (heads,),
                "erase_vectors": (writes, word),
                "add_vectors": (writes, word),
            },
        )
        self.output = nn.Linear(self.controller.output_size + reads * word, config.output_size)

    def initial_state(self, batch_size: int) -> NTMState:
        """Return a constant memory with every head on slot 0: from a uniform weighting nothing is ever learned."""
        config = self.config
        like = self.output.weight
        first_slot = like.new_zeros(batch_size, config.read_heads + config.write_heads, config.memory_size)
        first_slot[:, :, 0] = 1
        return NTMState(
            controller=self.controller.initial_state(batch_size),
            memory=like.new_full((batch_size, config.memory_size, config.word_size), INITIAL_MEMORY),
            read_weights=first_slot[:, : config.read_heads].clone(),
            write_weights=first_slot[:, config.read_heads :].clone(),
            read_vectors=like.new_full((batch_size, config.read_heads, config.word_size), INITIAL_MEMORY),
        )

    def step(self, inputs: Tensor, state: NTMState) -> tuple[Tensor, NTMState, Trace]:
        # Controller: h_t from the input and from what was read at the step before
        hidden, controller = self.controller(torch.cat([inputs, state.read_vectors.flatten(1)], 1), state.controller)
        controls = self._controls(hidden)

        # Address: by content, then relative to the previous weighting
        previous = torch.cat([state.read_weights, state.write_weights], 1)
        content = addressing.content_weights(state.memory, controls.keys, controls.key_strength)
        gated = addressing.interpolate(content, previous, controls.interpolation_gate)
        shifted = addressing.circular_shift(gated, controls.shift_weights)
        weights = addressing.sharpen(shifted, controls.sharpening)
        parts = torch.split(weights, [self.config.read_heads, self.config.write_heads], dim=1)
        read_weights, write_weights = (part.contiguous() for part in parts)

        # Read, then write
        read_vectors = addressing.read(state.memory, read_weights)
        memory = addressing.write(state.memory, write_weights, controls.erase_vectors, controls.add_vectors)

        outputs = self.output(torch.cat([hidden, read_vectors.flatten(1)], 1))
        next_state = NTMState(controller, memory, read_weights, write_weights, read_vectors)
        trace = {
            "read_weights": read_weights,
            "write_weights": write_weights,
            "key_strength": controls.key_strength,
            "interpolation_gate": controls.interpolation_gate,
            "shift_weights": controls.shift_weights,
            "sharpening": controls.sharpening,
        }
        return outputs, next_state, trace

    def _controls(self, hidden: Tensor) -> Controls:
        parts = self.interface.cut(hidden)
        return Controls(
            keys=torch.tanh(parts["keys"]),
            key_strength=softplus(parts["key_strength"]),
            interpolation_gate=torch.sigmoid(parts["interpolation_gate"]),
            shift_weights=torch.softmax(parts["shift_weights"], dim=2),
            sharpening=addressing.oneplus(parts["sharpening"]),
            erase_vectors=torch.sigmoid(parts["erase_vectors"]),
            add_vectors=torch.tanh(parts["add_vectors"]),
        )
