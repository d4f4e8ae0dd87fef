"""Whole sequences with their gradients by torch: step by step, or on a GPU as captured graphs."""

import gc
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from models.contract import MemoryModel, Step, unroll

S = TypeVar("S", bound=tuple[Any, ...])

MOST_STEPS = 512
"""The most steps of a captured sequence: a graph has a node for every kernel of every step, some 300 for each."""

Capture = Callable[[nn.Module, tuple[Tensor, ...]], nn.Module]
"""Returns a module that computes the same, for inputs in the shapes of these, by one launch, and its gradients too."""


class TorchUnroll:
    """`unroll` of one model by torch, called as FusedUnroll is. reason: why the kernels do not, if asked to."""

    path = "torch"

    def __init__(self, model: MemoryModel[Any], reason: str | None = None) -> None:
        self.model, self.reason = model, reason

    def __call__(self, inputs: Tensor, state: S | None = None, lengths: Tensor | None = None) -> tuple[Tensor, S]:
        first: Any = self.model.initial_state(batch_of(inputs)) if state is None else state
        outputs, after, _ = unroll(self.model, inputs, first, lengths=lengths)
        return outputs, after


class CapturedUnroll(TorchUnroll):
    """`unroll` of one model on a GPU, for trainers: two launches of the host for a sequence and its gradients.

    By torch alone a sequence is some hundred launches for each step, which take longer than their kernels. The first
    batch of each size is captured in two CUDA graphs, forwards and backwards, which later batches replay. So that few
    graphs are captured, steps of zeros follow a sequence up to the next number of `rounded_steps`; nothing depends on
    them. All graphs share their memory, as no two are ever under way: a sequence goes backwards before the next begins.

    Not captured, but stepped by torch, are sequences without gradients of weights, with gradients of inputs, from a
    state that is given, of a model in eval mode, and of more than MOST_STEPS steps.

    compiled: whether torch.compile fuses the kernels of a step before the capture; it needs a C compiler, and takes
    about a minute at the first batch. capture: makes the graphs of a module; torch's own, unless a test gives another.
    """

    path = "captured"

    def __init__(self, model: MemoryModel[Any], compiled: bool = False, capture: Capture | None = None) -> None:
        super().__init__(model)
        self.path = "compiled" if compiled else "captured"
        self._step: Step[Any] = without_trace(model)
        if compiled:
            self._step = torch.compile(self._step, fullgraph=True, dynamic=False)
        self._capture = capture or sharing_memory()
        self._captured: dict[tuple[Any, ...], nn.Module] = {}
        self._last: object = None  # the captured sequence that may go backwards

    def __call__(self, inputs: Tensor, state: S | None = None, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
        """Step the model over whole sequences; arguments are FusedUnroll's, on the device of the model.

        Returns outputs [T, B, output_size] before their activation, which the next call overwrites; and the state
        after the last step, or None where the sequence was captured. Gradients that are asked for twice, or after the
        next call, are refused by a RuntimeError.
        """
        weights = list(self.model.parameters())
        trained = tuple(weight.requires_grad for weight in weights)
        without = not torch.is_grad_enabled() or not any(trained)
        by_steps = without or not self.model.training or inputs.requires_grad or len(inputs) > MOST_STEPS
        if by_steps or state is not None:
            return super().__call__(inputs, state, lengths)
        steps = len(inputs)
        arguments = [pad(inputs, (0, 0, 0, 0, 0, rounded_steps(steps) - steps))]
        if lengths is not None:
            arguments.append(lengths.to(inputs.device))
        for weight in weights:
            if weight.grad is not None:  # maybe an array of a graph, which the next replay overwrites
                weight.grad = weight.grad.clone()
        outputs: Tensor = self._graphs(arguments, trained)(*arguments)
        self._last = mark = object()
        outputs.register_hook(partial(self._check_last, mark))  # type: ignore[no-untyped-call]
        return outputs[:steps], None

    def _check_last(self, mark: object, _: Tensor) -> None:
        """Raise RuntimeError before the gradients of a sequence, by its mark, whose activations are overwritten."""
        if mark is not self._last:
            raise RuntimeError(
                "a captured sequence goes backwards once, before the next one begins, whose activations overwrite its "
                "own: call backward() then, or unroll by kernels.torch_unroll.TorchUnroll"
            )
        self._last = None

    def _graphs(self, arguments: Sequence[Tensor], trained: tuple[bool, ...]) -> nn.Module:
        """Return the module that was captured for these shapes and weights that are trained, or capture it."""
        key = *((tensor.shape, tensor.dtype) for tensor in arguments), *trained
        if key not in self._captured:
            samples = tuple(torch.zeros_like(tensor) for tensor in arguments)
            self._captured[key] = self._capture(WholeSequence(self.model, self._step), samples)
        return self._captured[key]


class WholeSequence(nn.Module):
    """A sequence from the model's initial state, as a module: its tensors stay on the device of the model.

    step: in place of the model's own.
    """

    def __init__(self, model: MemoryModel[Any], step: Step[Any]) -> None:
        super().__init__()
        self.model, self._step = model, step

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """inputs: [T, B, input_size]; lengths: [B]. Returns the outputs, [T, B, output_size]."""
        first = self.model.initial_state(batch_of(inputs))
        outputs, _, _ = unroll(self.model, inputs, first, lengths=lengths, step=self._step)
        return outputs


def without_trace(model: MemoryModel[S]) -> Step[S]:
    """Return the model's step with an empty trace, whose values nobody reads."""

    def step(inputs: Tensor, state: S) -> tuple[Tensor, S, dict[str, Tensor]]:
        outputs, following, _ = model._step(inputs, state)
        return outputs, following, {}

    step.__code__ = step.__code__.replace()  # torch.compile counts the forms of each code, and a few are its limit
    return step


def sharing_memory() -> Capture:
    """Return torch's capture, all of whose graphs share their memory. Random numbers that it draws are drawn again."""
    pool = torch.cuda.graph_pool_handle()
    # Weights still have the stream of a trial run when they are captured: the capture's own takes its place.
    switch("set_override_stale_capture_stream", True)
    switch("set_warn_on_accumulate_grad_stream_mismatch", False)

    def capture(module: nn.Module, samples: tuple[Tensor, ...]) -> nn.Module:
        gc.collect()  # graphs of models that are gone refer to themselves, and hold memory
        with torch.random.fork_rng([samples[0].device]):
            torch.cuda.make_graphed_callables(module, samples, allow_unused_input=True, pool=pool)
        torch.cuda.empty_cache()  # the trial runs before a capture have a stream, and so memory, that nobody else uses
        return module  # with another forward

    return capture


def switch(name: str, value: bool) -> None:
    """Set a switch of torch.autograd.graph, if this version of torch has it."""
    getattr(torch.autograd.graph, name, lambda _: None)(value)


def rounded_steps(steps: int) -> int:
    """Return the steps of the graph for a sequence: four numbers between powers of two, so at most a quarter more."""
    apart = max(1, (1 << (steps - 1).bit_length()) // 8)
    return -(-steps // apart) * apart


def batch_of(inputs: Tensor) -> int:
    """Return B of inputs [T, B, input_size]; 1 for another shape, which is refused later."""
    return inputs.shape[1] if isinstance(inputs, Tensor) and inputs.dim() == 3 else 1
