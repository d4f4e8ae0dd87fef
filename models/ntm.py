"""The Neural Turing Machine (Graves, Wayne & Danihelka, arXiv 1410.5401), and the variants of published code."""

import math
from collections.abc import Callable, Sequence
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
from models.state import flatten, map_leaves, unflatten

INITIAL_MEMORY = 1e-6
"""Every entry of a constant memory before the first step."""


class HeadStyle(NamedTuple):
    """The functions that make weightings of the controller's output: activations, then addressing."""

    key: Callable[[Tensor], Tensor]
    key_strength: Callable[[Tensor], Tensor]
    gate: Callable[[Tensor], Tensor]
    """The activation of the interpolation gate and of erase vectors."""
    sharpening: Callable[[Tensor], Tensor]
    add: Callable[[Tensor], Tensor]
    similarity: Callable[[Tensor, Tensor], Tensor]
    shift: Callable[[Tensor, Tensor], Tensor]
    sharpen: Callable[[Tensor, Tensor], Tensor]


def _same(values: Tensor) -> Tensor:
    return values


def _clipped(values: Tensor) -> Tensor:
    return values.clamp(0, 1)


def _hard_sigmoid(values: Tensor) -> Tensor:
    """Return min(max(x / 5 + 1 / 2, 0), 1), Theano's."""
    return (0.2 * values + 0.5).clamp(0, 1)


STYLES = {
    "paper": HeadStyle(
        key=torch.tanh,
        key_strength=functional.softplus,
        gate=torch.sigmoid,
        sharpening=addressing.oneplus,
        add=torch.tanh,
        similarity=addressing.cosine_similarity,
        shift=addressing.circular_shift,
        sharpen=addressing.sharpen,
    ),
    "pytorch-ntm": HeadStyle(
        key=_same,
        key_strength=functional.softplus,
        gate=torch.sigmoid,
        sharpening=addressing.oneplus,
        add=_same,
        similarity=addressing.tight_cosine_similarity,
        shift=addressing.circular_shift,
        sharpen=addressing.sharpen_below_one,
    ),
    "ntm-lasagne": HeadStyle(
        key=_clipped,
        key_strength=torch.relu,
        gate=_hard_sigmoid,
        sharpening=lambda values: 1 + torch.relu(values),
        add=_clipped,
        similarity=addressing.joint_cosine_similarity,
        shift=addressing.flat_shift,
        sharpen=addressing.sharpen_raised,
    ),
}


@dataclass(frozen=True)
class NTMConfig(ModelConfig):
    """memory_size is N, the number of memory locations; word_size is W. No weight depends on memory_size but a start
    that is random or learned, which another size repeats or cuts.

    shift_width is S, the odd number of neighbouring locations that a head can move to: S = 3 allows -1, 0 and 1.

    order is the order in which heads act. together: all address the memory by the controller's output of this step,
    then all read, then all write. in-turn, as in pytorch-ntm: the first read head, the first write head, the second
    read head, ..., each on the memory that the one before it left. before-controller, as in ntm-lasagne: heads write
    and read with the weightings of the previous step, the controller runs on the inputs and the read vectors, and its
    output gives the new weightings and, alone, the outputs.

    style is that of the paper or of an implementation: its activations, similarity, shift and sharpening. With
    rectified_heads, keys and add vectors are max(x, 0), whatever the style (the examples of ntm-lasagne); with
    signed_heads, they are multiplied by parameters in [-1, 1] (early ntm-lasagne).

    memory_start, weights_start, reads_start and controller_start are the state before the first step. random: drawn
    once, when the model is made, and kept with its weights; learned: drawn the same way, then trained. Otherwise
    memory and read vectors are constant at 1e-6; the weightings are one-hot at location 0, zero, or uniform; and the
    controller's state is zero.

    programs is the number of interface layers, stored under keys of program_key_size numbers, of which each step takes
    a mixture (Le, Tran & Venkatesh, "Neural Stored-program Memory", ICLR 2020); with 1, there is one. With
    look_up_scaling, key strengths grow with log N where N differs from memory_size (Chiang & Cholak 2022).
    """

    memory_size: int = 128
    word_size: int = 20
    read_heads: int = 1
    write_heads: int = 1
    shift_width: int = 3
    controller: CellConfig = field(default_factory=LSTMConfig)
    order: Literal["together", "in-turn", "before-controller"] = "together"
    style: Literal["paper", "pytorch-ntm", "ntm-lasagne"] = "paper"
    signed_heads: bool = False
    rectified_heads: bool = False
    memory_start: Literal["constant", "random", "learned"] = "constant"
    weights_start: Literal["one-hot", "zero", "uniform", "random", "learned"] = "one-hot"
    reads_start: Literal["constant", "random", "learned"] = "constant"
    controller_start: Literal["zero", "random", "learned"] = "zero"
    programs: int = 1
    program_key_size: int = 8
    look_up_scaling: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, 1, "memory_size", "word_size", "read_heads", "write_heads", "shift_width")
        require_at_least(self, 1, "programs", "program_key_size")
        if self.shift_width % 2 == 0:
            raise ConfigError(f"NTMConfig.shift_width must be odd, got {self.shift_width}")
        if self.order == "in-turn" and self.read_heads != self.write_heads:
            raise ConfigError(
                f"NTMConfig.write_heads must be the {self.read_heads} read_heads, for order is 'in-turn', "
                f"got {self.write_heads}"
            )


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
    hidden: Tensor | None
    """The controller's output, by which the heads write at the next step if they act first: [B, hidden_size]"""


class NTMControls(NamedTuple):
    """The controller's output for its H = R + V heads, the read heads first. Ranges are those of the paper."""

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
    program_weights: Tensor | None = None
    """The shares of the programs, if there are several: [B, P], summing to 1; of all heads together."""


class NTM(MemoryModel[NTMState]):
    """A controller whose heads find memory locations by content and move between them by shifts."""

    def __init__(self, config: NTMConfig) -> None:
        super().__init__(config)
        self.config = config
        self.style = STYLES[config.style]
        if config.rectified_heads:
            self.style = self.style._replace(key=torch.relu, add=torch.relu)
        word, reads, writes = config.word_size, config.read_heads, config.write_heads
        heads = reads + writes
        self.controller = build_cell(self.encoded_size + reads * word, config.controller)
        parts: dict[str, tuple[int, ...]] = {
            "keys": (heads, word),
            "key_strength": (heads,),
            "interpolation_gate": (heads,),
            "shift_weights": (heads, config.shift_width),
            "sharpening": (heads,),
            "erase_vectors": (writes, word),
            "add_vectors": (writes, word),
        }
        if config.signed_heads:
            parts |= {"key_signs": (heads, word), "add_signs": (writes, word)}
        hidden_size = self.controller.output_size
        self.interface = InterfaceLayer(hidden_size, parts, config.programs, config.program_key_size)
        read_size = 0 if config.order == "before-controller" else reads * word
        self.output = nn.Linear(hidden_size + read_size, config.output_size)
        self.starts = self._draw_starts(hidden_size)

    def _draw_starts(self, hidden_size: int) -> nn.ModuleDict:
        """Return the leaves of the first state that are random or learned, with fresh values."""
        config = self.config
        size, word, heads = config.memory_size, config.word_size, config.read_heads + config.write_heads
        bound = 1 / math.sqrt(size + word)
        starts = nn.ModuleDict()
        if config.memory_start != "constant":
            starts["memory"] = Start(config.memory_start, torch.empty(size, word).uniform_(-bound, bound))
        if config.weights_start in ("random", "learned"):
            starts["weights"] = Start(config.weights_start, torch.randn(heads, size))
        if config.reads_start != "constant":
            starts["reads"] = Start(config.reads_start, 0.01 * torch.randn(config.read_heads, word))
        if config.controller_start != "zero":
            for name, leaf in flatten(self.controller.initial_state(1)).items():
                starts[_key(name)] = Start(config.controller_start, 0.05 * torch.randn(leaf.shape[1:]))
            if config.order == "before-controller":
                starts["hidden"] = Start(config.controller_start, 0.05 * torch.randn(hidden_size))
        return starts

    @property
    def memory_size(self) -> int:
        return self.config.memory_size

    def initial_state(self, batch_size: int, memory_size: int | None = None) -> NTMState:
        """Return the state that the config's starts describe.

        A memory that is random or learned is repeated from its first location on where memory_size is larger than its
        own, and cut where it is smaller; the weightings are 0 beyond their own size.
        """
        config = self.config
        locations = torch.arange(checked_memory_size(config, memory_size), device=self.output.weight.device)
        weights = self._first_weights(locations).expand(batch_size, -1, -1)
        controller = self.controller.initial_state(batch_size)
        leaves = {name: self._first(_key(name), leaf) for name, leaf in flatten(controller).items()}
        memory = self.output.weight.new_full((batch_size, locations.shape[0], config.word_size), INITIAL_MEMORY)
        if "memory" in self.starts:
            first_memory = self._start("memory")
            memory = first_memory[locations % first_memory.shape[0]].expand(batch_size, -1, -1)
        reads = self.output.weight.new_full((batch_size, config.read_heads, config.word_size), INITIAL_MEMORY)
        hidden = self.output.weight.new_zeros(batch_size, self.controller.output_size)
        state = NTMState(
            controller=unflatten(leaves, controller),
            memory=memory,
            read_weights=weights[:, : config.read_heads],
            write_weights=weights[:, config.read_heads :],
            read_vectors=self._first("reads", reads),
            hidden=self._first("hidden", hidden) if config.order == "before-controller" else None,
        )
        return map_leaves(_own, state)

    def _first(self, name: str, otherwise: Tensor) -> Tensor:
        """Return the start of this name for every row, or `otherwise` if there is none: [B, ...]."""
        return self._start(name).expand_as(otherwise) if name in self.starts else otherwise

    def _start(self, name: str) -> Tensor:
        start = self.starts[name]
        assert isinstance(start, Start)
        return start.values

    def _first_weights(self, locations: Tensor) -> Tensor:
        """Return the weightings before the first step of all heads, the read heads first: [H, N]."""
        heads, like = self.config.read_heads + self.config.write_heads, self.output.weight
        if "weights" in self.starts:
            weights = torch.softmax(self._start("weights"), 1)
            made = weights.shape[1]
            return weights[:, locations.clamp(max=made - 1)] * (locations < made)
        if self.config.weights_start == "uniform":
            return torch.softmax(torch.zeros_like(locations, dtype=like.dtype), 0).expand(heads, -1)
        first = (locations == 0) if self.config.weights_start == "one-hot" else torch.zeros_like(locations)
        return first.to(like.dtype).expand(heads, -1)

    def _step(self, inputs: Tensor, state: NTMState) -> tuple[Tensor, NTMState, Trace]:
        if state.hidden is None:
            return self._step_after(inputs, state)
        return self._step_before(inputs, state, state.hidden)

    def _step_after(self, inputs: Tensor, state: NTMState) -> tuple[Tensor, NTMState, Trace]:
        """Run the controller, then the heads: together, or in turn."""
        # Controller: h_t from the input and the read vectors of the previous step
        seen = torch.cat([self.encode(inputs), state.read_vectors.flatten(1)], 1)
        hidden, controller = self.controller(seen, state.controller)
        controls = self._controls(hidden)

        # Heads: address by content, then relative to the previous weighting; read, then write
        memory, found, read_weights, write_weights, read_vectors = state.memory, [], [], [], []
        for group in self._head_groups(controls, state):
            found.append(self._address(memory, group.controls, group.previous))
            weights = found[-1].sharpened
            reading, writing = torch.split(weights, [weights.shape[1] - group.writes, group.writes], dim=1)
            read_vectors.append(addressing.read(memory, reading))
            memory = addressing.write(memory, writing, group.controls.erase_vectors, group.controls.add_vectors)
            read_weights.append(reading)
            write_weights.append(writing)

        outputs = self.output(torch.cat([hidden, *(vectors.flatten(1) for vectors in read_vectors)], 1))
        next_state = NTMState(
            controller, memory, _joined(read_weights), _joined(write_weights), _joined(read_vectors), hidden=None
        )
        return outputs, next_state, _trace(next_state, controls, found)

    def _step_before(self, inputs: Tensor, state: NTMState, hidden: Tensor) -> tuple[Tensor, NTMState, Trace]:
        """Run the heads with the weightings of the previous step, then the controller; return the next weightings."""
        before = self._controls(hidden)
        memory = addressing.write(state.memory, state.write_weights, before.erase_vectors, before.add_vectors)
        read_vectors = addressing.read(memory, state.read_weights)

        seen = torch.cat([self.encode(inputs), read_vectors.flatten(1)], 1)
        hidden, controller = self.controller(seen, state.controller)

        controls = self._controls(hidden)
        found = self._address(memory, controls, torch.cat([state.read_weights, state.write_weights], 1))
        reading, writing = torch.split(found.sharpened, [self.config.read_heads, self.config.write_heads], dim=1)
        next_state = NTMState(
            controller, memory, reading.contiguous(), writing.contiguous(), read_vectors, hidden.clone()
        )
        used = state._replace(read_vectors=read_vectors)
        wrote = controls._replace(erase_vectors=before.erase_vectors, add_vectors=before.add_vectors)
        return self.output(hidden), next_state, _trace(used, wrote, [found])

    def _head_groups(self, controls: NTMControls, state: NTMState) -> list["HeadGroup"]:
        """Return the heads that act together, in order: all heads, or each read head with its write head."""
        reads, writes = self.config.read_heads, self.config.write_heads
        previous = torch.cat([state.read_weights, state.write_weights], 1)
        if self.config.order == "together":
            return [HeadGroup(controls, previous, writes)]

        def pairs(values: Tensor) -> list[Tensor]:
            kinds = [part.unbind(1) for part in torch.split(values, reads, 1)]
            return [torch.stack(pair, 1) for pair in zip(*kinds, strict=True)]

        of_heads = [values for values in controls._replace(program_weights=None) if values is not None]
        by_pair = zip(*map(pairs, of_heads), strict=True)
        return [
            HeadGroup(NTMControls(*parts), before, 1) for parts, before in zip(by_pair, pairs(previous), strict=True)
        ]

    def _address(self, memory: Tensor, controls: NTMControls, previous: Tensor) -> "Addressing":
        """Return the weightings of some heads. previous: those of the previous step, [B, H, N]."""
        similarities, strengths = self.style.similarity(memory, controls.keys), controls.key_strength
        if self.config.look_up_scaling:
            strengths = addressing.scaled_strengths(strengths, similarities, self.config.memory_size)
        content = addressing.content_weights(similarities, strengths)
        gated = addressing.interpolate(content, previous, controls.interpolation_gate)
        shifted = self.style.shift(gated, controls.shift_weights)
        return Addressing(content, gated, shifted, self.style.sharpen(shifted, controls.sharpening))

    def _controls(self, hidden: Tensor) -> NTMControls:
        style, parts = self.style, self.interface.cut(hidden)
        keys, add_vectors = style.key(parts["keys"]), style.add(parts["add_vectors"])
        if self.config.signed_heads:
            keys = keys * parts["key_signs"].clamp(-1, 1)
            add_vectors = add_vectors * parts["add_signs"].clamp(-1, 1)
        controls = NTMControls(
            keys=keys,
            key_strength=style.key_strength(parts["key_strength"]),
            interpolation_gate=style.gate(parts["interpolation_gate"]),
            shift_weights=torch.softmax(parts["shift_weights"], dim=2),
            sharpening=style.sharpening(parts["sharpening"]),
            erase_vectors=style.gate(parts["erase_vectors"]),
            add_vectors=add_vectors,
            program_weights=parts.get("program_weights"),
        )
        return hold(controls, self._force)


class Start(nn.Module):
    """A leaf of the first state that is drawn, not constant: a buffer where it is random, a parameter where learned."""

    values: Tensor

    def __init__(self, start: str, values: Tensor) -> None:
        super().__init__()
        if start == "learned":
            self.values = nn.Parameter(values)
        else:
            self.register_buffer("values", values)


class HeadGroup(NamedTuple):
    """Heads that act at the same time, the read heads first."""

    controls: NTMControls
    previous: Tensor
    """The weightings of these heads at the previous step: [B, H, N]"""
    writes: int
    """The number of write heads."""


class Addressing(NamedTuple):
    """The weightings of some heads on their way from content to location: [B, H, N] each."""

    content: Tensor
    gated: Tensor
    shifted: Tensor
    sharpened: Tensor
    """The weightings by which the heads read and write."""


def _trace(used: NTMState, controls: NTMControls, found: list[Addressing]) -> Trace:
    """Return the trace.

    used: the state with the weightings by which this step read and wrote, and the vectors read; controls: with the
    vectors that it wrote; found: the weightings of each group of heads.
    """
    content, gated, shifted, _ = map(_in_order, zip(*found, strict=True))
    return {
        **{name: values for name, values in controls._asdict().items() if values is not None},
        "content_weights": content,
        "gated_weights": gated,
        "shifted_weights": shifted,
        "read_weights": used.read_weights,
        "write_weights": used.write_weights,
        "read_vectors": used.read_vectors,
    }


def _in_order(groups: Sequence[Tensor]) -> Tensor:
    """Return the weightings of all heads, the read heads first: those of one group, or of pairs of heads, [B, 2, N]."""
    return groups[0] if len(groups) == 1 else torch.stack(tuple(groups), 2).flatten(1, 2)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0].contiguous() if len(parts) == 1 else torch.cat(parts, 1)


def _own(leaf: Tensor) -> Tensor:
    return leaf.clone(memory_format=torch.contiguous_format)


def _key(leaf: str) -> str:
    """Return the name of a start for a leaf of the controller's state."""
    return f"controller_{leaf.replace('.', '_')}"
