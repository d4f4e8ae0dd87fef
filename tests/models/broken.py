"""A small model of a user's own that keeps every law, and classes that break one each."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models.config import ConfigError
from models.contract import MemoryModel, ModelConfig


@dataclass(frozen=True)
class LeakyConfig(ModelConfig):
    size: int = 4
    memory_size: int | None = None


class LeakyState(NamedTuple):
    h: Any


class Leaky(MemoryModel[Any]):
    """h <- a h + (1 - a) tanh W x, y = U h, with learned leaks a."""

    def __init__(self, config: LeakyConfig = LeakyConfig(4, 2)) -> None:
        super().__init__(config)
        self.size = config.size
        self.leaks = nn.Parameter(torch.zeros(config.size))
        self.inward = nn.Linear(config.input_size, config.size)
        self.outward = nn.Linear(config.size, config.output_size)

    def initial_state(self, batch_size: int, memory_size: int | None = None) -> Any:
        if memory_size is not None:
            raise ConfigError(f"memory_size {memory_size}: it has no memory")
        return LeakyState(self.leaks.new_zeros(batch_size, self.size))

    def _step(self, inputs: Tensor, state: Any) -> Any:
        h = self.mixed(inputs, state.h)
        return self.outward(h), LeakyState(h), {"activity": h}

    def mixed(self, inputs: Tensor, h: Tensor) -> Tensor:
        a = torch.sigmoid(self.leaks)
        return a * h + (1 - a) * torch.tanh(self.inward(inputs))


class Dropping(Leaky):
    """Drops half of its units in training."""

    def mixed(self, inputs: Tensor, h: Tensor) -> Tensor:
        return super().mixed(inputs, nn.functional.dropout(h, 0.5, self.training))


class Slots(Leaky):
    """A memory of two locations that its inputs are added to."""

    memory_size = 2

    def initial_state(self, batch_size: int, memory_size: int | None = None) -> Any:
        return SlotsState(self.leaks.new_zeros(batch_size, 2 if memory_size is None else memory_size, self.size))

    def _step(self, inputs: Tensor, state: Any) -> Any:
        memory = self.mixed(inputs, state.memory.mean(1))[:, None] + 0 * state.memory
        return self.outward(memory.sum(1)), SlotsState(memory), {}


class SlotsState(NamedTuple):
    memory: Tensor


class Weightless(Leaky):
    def __init__(self) -> None:
        super().__init__()
        self.requires_grad_(False)


class PlainTuple(Leaky):
    def initial_state(self, batch_size: int, memory_size: int | None = None) -> Any:
        return tuple(super().initial_state(batch_size, memory_size))


class NumberInState(Leaky):
    def initial_state(self, batch_size: int, memory_size: int | None = None) -> Any:
        return LeakyState(0.0 if memory_size is None else super().initial_state(batch_size, memory_size))


class BatchSecond(Leaky):
    def initial_state(self, batch_size: int, memory_size: int | None = None) -> Any:
        return LeakyState(super().initial_state(batch_size, memory_size).h.T)


class EmptyLeaf(Leaky):
    def initial_state(self, batch_size: int, memory_size: int | None = None) -> Any:
        return LeakyState(super().initial_state(batch_size, memory_size).h[:, :0])


class WholeNumbers(Leaky):
    def initial_state(self, batch_size: int, memory_size: int | None = None) -> Any:
        return LeakyState(super().initial_state(batch_size, memory_size).h.long())


class FixedPrecision(Leaky):
    def initial_state(self, batch_size: int, memory_size: int | None = None) -> Any:
        return LeakyState(super().initial_state(batch_size, memory_size).h.float())


class TwoResults(Leaky):
    def _step(self, inputs: Tensor, state: Any) -> Any:
        return super()._step(inputs, state)[:2]


class FlatOutputs(Leaky):
    def _step(self, inputs: Tensor, state: Any) -> Any:
        outputs, state, trace = super()._step(inputs, state)
        return outputs[:, 0], state, trace


class OtherState(NamedTuple):
    h: Any


class OtherStructure(Leaky):
    def _step(self, inputs: Tensor, state: Any) -> Any:
        outputs, state, trace = super()._step(inputs, state)
        return outputs, OtherState(*state), trace


class GrowingState(Leaky):
    def _step(self, inputs: Tensor, state: Any) -> Any:
        outputs, state, trace = super()._step(inputs, state)
        return outputs, LeakyState(torch.cat([state.h, state.h], 1)), trace


class ListTrace(Leaky):
    def _step(self, inputs: Tensor, state: Any) -> Any:
        return *super()._step(inputs, state)[:2], [inputs]


class MeanTrace(Leaky):
    def _step(self, inputs: Tensor, state: Any) -> Any:
        return *super()._step(inputs, state)[:2], {"mean": inputs.mean(0)}


class DrawnTrace(Leaky):
    def _step(self, inputs: Tensor, state: Any) -> Any:
        outputs, state, _ = super()._step(inputs, state)
        return outputs, state, {"read_weights": state.h}


class Branching(Leaky):
    def mixed(self, inputs: Tensor, h: Tensor) -> Tensor:
        return super().mixed(inputs, h) if inputs.isfinite().all() else h


class LeftBehind(Leaky):
    def __init__(self) -> None:
        super().__init__()
        self.ones = torch.ones(4)

    def mixed(self, inputs: Tensor, h: Tensor) -> Tensor:
        return super().mixed(inputs, h * self.ones)


class Overflowing(Leaky):
    def mixed(self, inputs: Tensor, h: Tensor) -> Tensor:
        return (super().mixed(inputs, h).abs() + 10) ** 200


class InPlaceState(Leaky):
    def mixed(self, inputs: Tensor, h: Tensor) -> Tensor:
        return h.copy_(super().mixed(inputs, h))


class InPlaceInputs(Leaky):
    def mixed(self, inputs: Tensor, h: Tensor) -> Tensor:
        return super().mixed(inputs.clamp_(-0.1, 0.1), h)


class Noisy(Leaky):
    def mixed(self, inputs: Tensor, h: Tensor) -> Tensor:
        return super().mixed(inputs, h) + 1e-3 * torch.randn_like(h)


class Counting(Leaky):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros(1))

    def mixed(self, inputs: Tensor, h: Tensor) -> Tensor:
        self.steps += 1
        return super().mixed(inputs, h)


class Remembering(Leaky):
    """Keeps its last hidden values on the module, where a state of zeros meets them: repeating a step hides it."""

    last: Any = 0

    def mixed(self, inputs: Tensor, h: Tensor) -> Tensor:
        if (h == 0).all():
            h = h + self.last
        else:
            self.last = super().mixed(inputs, h).detach().mean()
        return super().mixed(inputs, h)


class Interleaving(Leaky):
    """Takes the state of the last step that any sequence took, unless a sequence begins."""

    last: Any = None

    def initial_state(self, batch_size: int, memory_size: int | None = None) -> Any:
        self.last = None
        return super().initial_state(batch_size, memory_size)

    def mixed(self, inputs: Tensor, h: Tensor) -> Tensor:
        if self.last is not None and self.last.shape == h.shape and not torch.equal(self.before, h):
            h = self.last
        self.before, self.last = h, super().mixed(inputs, h)
        return self.last


class DrawnStart(Leaky):
    def initial_state(self, batch_size: int, memory_size: int | None = None) -> Any:
        return LeakyState(torch.rand_like(super().initial_state(batch_size, memory_size).h))


class BatchMean(Leaky):
    def mixed(self, inputs: Tensor, h: Tensor) -> Tensor:
        return super().mixed(inputs - 1e-4 * inputs.mean(0), h)


class LeakOfExtremes(Leaky):
    """Scales by the largest input of the batch once it is beyond any that training has."""

    def mixed(self, inputs: Tensor, h: Tensor) -> Tensor:
        return super().mixed(inputs / inputs.abs().max().clamp(min=1e3) * 1e3, h)


class PlaceInBatch(Leaky):
    def mixed(self, inputs: Tensor, h: Tensor) -> Tensor:
        return super().mixed(inputs + 0.01 * torch.arange(len(inputs)).to(inputs)[:, None], h)


class AnyMemorySize(Leaky):
    def initial_state(self, batch_size: int, memory_size: int | None = None) -> Any:
        del memory_size
        return super().initial_state(batch_size)


class MemoryElsewhere(Leaky):
    memory_size = 4

    def initial_state(self, batch_size: int, memory_size: int | None = None) -> Any:
        return LeakyState(self.leaks.new_zeros(batch_size, memory_size or 4))


class FixedMemory(Slots):
    def initial_state(self, batch_size: int, memory_size: int | None = None) -> Any:
        del memory_size
        return super().initial_state(batch_size)


class ShrinkingMemory(Slots):
    def _step(self, inputs: Tensor, state: Any) -> Any:
        outputs, following, trace = super()._step(inputs, state)
        return outputs, SlotsState(following.memory[:, :2]), trace


class Detached(Leaky):
    def _step(self, inputs: Tensor, state: Any) -> Any:
        outputs, state, trace = super()._step(inputs, state)
        return outputs.detach(), state, trace


class Unused(Leaky):
    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Linear(2, 2)


class InfiniteGradient(Leaky):
    def mixed(self, inputs: Tensor, h: Tensor) -> Tensor:
        return super().mixed(inputs, h) + torch.sqrt(0 * self.leaks**2)


class Failing(Leaky):
    def mixed(self, inputs: Tensor, h: Tensor) -> Tensor:
        return self.inward(torch.cat([h, inputs], 1))
