"""Training: loss and gradients of whole sequences, by the kernels, by torch, by public implementations."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.kernels.plan import KernelsPlan
from benchmarks.kernels.sizes import random_bits, random_model
from benchmarks.kernels.threads import gain
from benchmarks.peers import (
    DNC_MEMORY_SIZE,
    DNC_READ_HEADS,
    DNC_WORD_SIZE,
    HIDDEN_SIZE,
    INPUT_SIZE,
    NTM_MEMORY_SIZE,
    NTM_WORD_SIZE,
    OUTPUT_SIZE,
    Peer,
)
from benchmarks.table import Row, Table
from benchmarks.timing import WrongOutputs, check_close, medians
from kernels.library import Library
from kernels.unroll import FusedUnroll
from models.cells import LSTMConfig
from models.contract import MemoryModel, unroll
from models.dnc import DNCConfig
from models.ntm import NTMConfig
from models.registry import AnyConfig

STEPS = 42
"""Steps of a sequence: the copy task's 20 vectors twice, and two flags."""

TOLERANCE = 1e-4
"""The tolerance of loss and gradients by the kernels and by autograd, relative to the largest of each weight."""
SAME = 0.0

LSTM = LSTMConfig(hidden_size=HIDDEN_SIZE)
NTM = NTMConfig(INPUT_SIZE, OUTPUT_SIZE, memory_size=NTM_MEMORY_SIZE, word_size=NTM_WORD_SIZE, controller=LSTM)
DNC = partial(DNCConfig, INPUT_SIZE, OUTPUT_SIZE, DNC_MEMORY_SIZE, DNC_WORD_SIZE, controller=LSTM)
MODELS: dict[str, AnyConfig] = {"NTM": NTM, **{f"DNC R={heads}": DNC(read_heads=heads) for heads in DNC_READ_HEADS}}

ABOUT_MODELS = (
    f"NTM: {NTM_MEMORY_SIZE} x {NTM_WORD_SIZE}, LSTM {HIDDEN_SIZE}. "
    f"DNC: {DNC_MEMORY_SIZE} x {DNC_WORD_SIZE}, LSTM {HIDDEN_SIZE}."
)

Unroll: TypeAlias = Callable[[Tensor], Tensor]
"""inputs [T, B, 9] -> outputs [T, B, 8] before their activation, from the state before the first step."""


def episodes(batch: int) -> tuple[Tensor, Tensor]:
    """Return inputs and targets of random bits."""
    bits = torch.from_numpy(random_bits(STEPS, batch, INPUT_SIZE + OUTPUT_SIZE))
    return bits[..., :INPUT_SIZE].contiguous(), bits[..., INPUT_SIZE:].contiguous()


def by_autograd(model: MemoryModel[Any]) -> Unroll:
    return lambda inputs: unroll(model, inputs, model.initial_state(inputs.shape[1]))[0]


def by_kernels(model: MemoryModel[Any], threads: int, kernels: Library | None = None) -> Unroll:
    fused = FusedUnroll(model, threads=threads, kernels=kernels)
    return lambda inputs: fused(inputs)[0]


def update(model: MemoryModel[Any], outputs: Unroll, inputs: Tensor, targets: Tensor) -> float:
    """Clear the old gradients, compute loss and new gradients, and return the loss, as `Peer.update` does."""
    model.zero_grad()
    loss = functional.binary_cross_entropy_with_logits(outputs(inputs), targets)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item()


def check_gradients(
    case: str, model: MemoryModel[Any], ours: Unroll, reference: Unroll, batch: int, tolerance: float
) -> None:
    """Compare the gradients of every weight. Raises WrongOutputs."""
    gradients = []
    for outputs in (ours, reference):
        update(model, outputs, *episodes(batch))
        gradients.append(
            {name: weight.grad.numpy() for name, weight in model.named_parameters() if weight.grad is not None}
        )
    found, expected = gradients
    if found.keys() != expected.keys():
        raise WrongOutputs(f"not timed, {case}: only one has gradients of {sorted(found.keys() ^ expected.keys())}")
    for name, gradient in expected.items():
        check_close(f"{case}: gradient of {name}", found[name], gradient, tolerance)


def check_peer(peer: Peer, batch: int) -> None:
    """Raise WrongOutputs unless a public implementation trains: loss and gradients are finite and not 0."""
    loss = peer.update(*episodes(batch))
    size = sum(float(weight.grad.norm()) for weight in peer.parameters() if weight.grad is not None)
    if not (math.isfinite(loss) and 0 < size < math.inf):
        raise WrongOutputs(f"not timed, {peer.name}: its loss is {loss}, the size of its gradients {size}")


# Beside autograd and the public implementations


def measure_training(plan: KernelsPlan) -> Iterator[Row]:
    for name, batch in plan.cases(list(MODELS), (16, 1)):
        model, (inputs, targets) = random_model(MODELS[name]), episodes(batch)
        ours, reference = by_kernels(model, 1), by_autograd(model)
        check_gradients(f"{name} at batch {batch}", model, ours, reference, batch, TOLERANCE)
        updates: dict[str, Callable[[], object]] = {
            "fused": partial(update, model, ours, inputs, targets),
            "torch": partial(update, model, reference, inputs, targets),
        }
        for peer in plan.peers:
            if model_of(peer) == name:
                check_peer(peer, batch)
                updates[peer.name] = partial(peer.update, inputs, targets)
        times = medians(updates, plan.rounds, plan.seconds)
        for who, seconds in times.items():
            yield name, batch, who, batch / seconds, seconds / times["fused"]


def model_of(peer: Peer) -> str:
    """Return the model of ours to compare a public implementation with."""
    return "NTM" if peer.model == "ntm" else f"DNC R={peer.read_heads}"


TRAINING = Table(
    "Training",
    f"Sequences of {STEPS} steps per second, loss, gradients and all, one thread; {INPUT_SIZE} inputs, {OUTPUT_SIZE} "
    f"outputs. {ABOUT_MODELS} torch is our model by autograd; the others are public implementations of the same sizes.",
    ("model", "batch", "by", "sequences/s", "fused / this"),
    measure_training,
)


# Two threads


def measure_threads(plan: KernelsPlan) -> Iterator[Row]:
    for name, batch in plan.cases(list(MODELS)[:2], (16, 32)):
        model, (inputs, targets) = random_model(MODELS[name]), episodes(batch)
        one, two = by_kernels(model, 1), by_kernels(model, 2)
        check_gradients(f"{name} at batch {batch}, two threads", model, two, one, batch, SAME)
        by_one, by_two = (partial(update, model, outputs, inputs, targets) for outputs in (one, two))
        times = gain(by_one, by_two, plan.rounds, plan.seconds)
        yield name, batch, batch / times.one, batch / times.two, times.one / times.two, times.possible


THREADS = Table(
    "Training by two threads",
    "Sequences per second by the kernels, by one thread and by two that share the sequences; the last column as above.",
    ("model", "batch", "one thread", "two threads", "two / one", "products: two / one"),
    measure_threads,
)
