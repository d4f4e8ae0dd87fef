"""Updates by the kernels: loss, gradients, clipping, optimiser and weights against torch in float64."""

import copy
import ctypes
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from kernels.layout import ANSWERS, CALLS, LossCall
from kernels.library import library
from kernels.torch_unroll import TorchUnroll
from kernels.unroll import FusedUnroll
from kernels.update import Batch, FusedUpdate
from tests.models.catalogue import CATALOGUE, make_from, random_inputs
from training.distributed import ALONE, BatchPart
from training.optimizers import OptimizerConfig
from training.tasks import AnswerTask, BitTask, Episode
from training.updates import KernelUpdates, TorchUpdates, rule_of

MODELS = [
    "dnc-masking",
    "dnc-tokens",
    "dnc-programs",
    "ntm",
    "ntm-learned-starts",
    "ntm-before-controller-stack",
    "ntm-programs-before-controller",
    "rnn-no-readout",
    "rnn-lstm-peepholes",
    "rnn-lstm-projection",
]
"""A weight of every place: packed, transposed, neither, of an embedding and of a learned first state."""


class Unused:
    """The rest of a task, which no loss needs."""

    name, paper, input_size = "test", "", 1

    def sample(self, generator, batch_size):
        raise NotImplementedError

    def render(self, episode, row=0):
        raise NotImplementedError


@dataclass(frozen=True)
class Bits(Unused, BitTask):
    output_size: int = 1


@dataclass(frozen=True)
class Digits(Unused, AnswerTask):
    groups: int = 1
    classes: int = 2
    model_values = None


def answers(task, steps, rows, generator, dtype=torch.float64):
    """Return an episode of random answers."""
    if isinstance(task, BitTask):
        targets = torch.randint(0, 2, (steps, rows, task.output_size), generator=generator)
    else:
        targets = task.one_hot(torch.randint(0, task.classes, (steps, rows, task.groups), generator=generator))
    mask = torch.randint(0, 2, (steps, rows), generator=generator)
    return Episode(torch.zeros(steps, rows, 1), targets.to(dtype), mask.to(dtype))


def loss_by_kernels(kernels, task, outputs, episode):
    """Return loss, errors of the batch, and the gradient of the outputs."""
    kind, groups = (1, task.groups) if isinstance(task, AnswerTask) else (0, 1)
    d_outputs = torch.full_like(outputs, torch.nan)
    call = LossCall(kind, *outputs.shape, groups)
    call.outputs, call.targets, call.mask = (t.data_ptr() for t in (outputs, episode.targets, episode.mask))
    call.d_outputs = d_outputs.data_ptr()
    kernels.loss(ctypes.byref(call))
    return call.loss, call.errors, d_outputs


tasks = st.one_of(st.integers(1, 20).map(Bits), st.builds(Digits, groups=st.integers(1, 4), classes=st.integers(2, 20)))


@pytest.mark.slow
@settings(max_examples=100, deadline=None, derandomize=True)
@given(tasks, st.integers(1, 6), st.integers(1, 3), st.sampled_from([1e-3, 1.0, 40.0]), st.integers(0, 1000))
def test_loss_errors_and_gradient_are_the_tasks(float64, task, steps, rows, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    episode = answers(task, steps, rows, generator)
    outputs = scale * torch.randn(episode.targets.shape, generator=generator, dtype=torch.float64)
    logits = outputs.clone().requires_grad_()
    expected = task.loss(logits, episode)
    (gradient,) = torch.autograd.grad(expected, logits)
    loss, errors, d_outputs = loss_by_kernels(float64, task, outputs, episode)
    torch.testing.assert_close(loss, expected.item(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(d_outputs, gradient, rtol=1e-9, atol=1e-12)
    assert errors == (task.errors(outputs, episode).sum().item() if episode.mask.any() else 0)


@pytest.mark.parametrize("task", [Bits(9), Digits(2, 11)])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_loss_of_outputs_that_are_not_finite_is_not_finite(task, bad):
    episode = answers(task, 3, 2, torch.Generator().manual_seed(1), torch.float32)
    episode = episode._replace(mask=torch.ones(3, 2))
    outputs = torch.zeros(episode.targets.shape)
    outputs[1, 1, 3] = bad
    episode.targets[1, 1, 3] = float(bad != torch.inf)  # whose cross-entropy is finite for inf in a bit of 1
    loss, _, d_outputs = loss_by_kernels(library(), task, outputs, episode)
    assert not torch.tensor(loss).isfinite() or not d_outputs.isfinite().all()


OPTIONS = {
    "adam": {"kind": "adam", "epsilon": 1e-3},
    "adam-clipped": {"kind": "adam", "epsilon": 1e-3, "betas": (0.5, 0.9), "clip_value": 0.02, "clip_norm": 0.03},
    "adam-regularised": {"kind": "adam", "epsilon": 1e-3, "l1": 0.01, "l2": 0.1, "clip_norm": 0.0},
    "rmsprop": {"kind": "rmsprop", "epsilon": 1e-3, "clip_norm": 0.1},
    "rmsprop-regularised": {"kind": "rmsprop", "epsilon": 1e-2, "l1": 0.02, "l2": 0.2, "clip_norm": 0.0},
}


def episodes_for(model, count):
    """Return random episodes of some lengths for a model."""
    generator = torch.Generator().manual_seed(3)
    for number in range(count):
        inputs = random_inputs(model, 4 + number % 2, 3)
        episode = answers(Bits(model.output_size), len(inputs), 3, generator)
        lengths = torch.tensor([len(inputs), 2, 3]) if number % 2 else None
        yield episode._replace(inputs=inputs.double(), lengths=lengths)


def as_float(episode):
    return Episode(*(None if tensor is None else tensor.float() for tensor in episode[:3]), episode.lengths)


def part_of(episode):
    return BatchPart(episode, 1.0, float(episode.mask.any()))


def trained(model, **options):
    """Update a model by both kinds of answers and both optimisers. options: of FusedUnroll."""
    digits = Digits(model.output_groups, model.output_size // model.output_groups)
    for kind, task in {"adam": Bits(model.output_size), "rmsprop": digits}.items():
        config = OptimizerConfig(kind=kind, l1=1e-3, l2=1e-2, clip_value=0.1)
        updates = KernelUpdates(FusedUnroll(model, **options), config)
        for episode in map(as_float, episodes_for(model, 2)):
            assert updates.update(task, part_of(episode), 1e-3).skipped is None
        updates.end()


def assert_near(ours, theirs, what):
    assert ours.keys() == theirs.keys(), what
    for name, expected in theirs.items():
        scale = max(1e-3, expected.abs().max().item())
        assert (ours[name].double() - expected).abs().max().item() <= 1e-8 * scale, (what, name)


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", MODELS)
def test_updates_in_float64_are_those_of_torch(name, options, float64):
    model = make_from(CATALOGUE[name]).double()
    same = copy.deepcopy(model)
    config = OptimizerConfig(learning_rate=1e-2, **OPTIONS[options])
    ours = KernelUpdates(FusedUnroll(model, kernels=float64), config)
    theirs = TorchUpdates(same, TorchUnroll(same), config, ALONE)
    task = Bits(model.output_size)
    for number, episode in enumerate(episodes_for(model, 4)):
        figures, expected = (each.update(task, part_of(episode), 1e-2 / (1 + number)) for each in (ours, theirs))
        assert figures[:3] == pytest.approx(expected[:3], rel=1e-7), number
        assert figures[3:] == expected[3:]
    assert_near(dict(ours.model.named_parameters()), dict(theirs.model.named_parameters()), "weights")
    state, expected_state = ours.optimizer_state(), theirs.optimizer_state()
    assert state.keys() == expected_state.keys()
    for weight, kept in expected_state.items():
        assert_near(state[weight], kept, weight)


@pytest.mark.parametrize("kind", ["adam", "rmsprop"])
@pytest.mark.parametrize("name", ["dnc", "ntm-learned-starts", "ntm-programs-in-turn", "rnn-no-readout", "dnc-tokens"])
def test_saved_state_goes_on_to_the_bit(name, kind):
    model, config = make_from(CATALOGUE[name]), OptimizerConfig(kind)
    episodes = [part_of(as_float(episode)) for episode in episodes_for(model, 6)]
    task, updates = Bits(model.output_size), KernelUpdates(FusedUnroll(model), config)
    for part in episodes[:3]:
        updates.update(task, part, 1e-2)
    copied = copy.deepcopy(updates.model)
    again = KernelUpdates(FusedUnroll(copied), config)
    again.restore(updates.optimizer_state())
    for part in episodes[3:]:
        assert again.update(task, part, 1e-2) == updates.update(task, part, 1e-2)
    for ours, theirs in zip(again.model.parameters(), updates.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_state_saved_by_torch_with_a_frozen_weight_goes_on():
    (ours, theirs), task, parts = both_ways("dnc", 3)
    for updates in (ours, theirs):
        updates.model.output.weight.requires_grad_(False)
    theirs.update(task, parts[0], 1e-2)
    ours.model.load_state_dict(theirs.model.state_dict())
    ours.restore(theirs.optimizer_state())
    for part in parts[1:]:
        assert ours.update(task, part, 1e-2)[:3] == pytest.approx(theirs.update(task, part, 1e-2)[:3], rel=1e-4)


def test_numbers_that_are_no_weights_stay_as_they_are():
    model = make_from(CATALOGUE["rnn-no-readout"])
    fused = FusedUpdate(FusedUnroll(model), rule_of(OptimizerConfig(epsilon=0.0, learning_rate=0.1)))
    packed = fused._packed
    fused._pack()
    before, padding = packed.values.copy(), packed.trained == 0
    packed.d_values[:] = torch.nan
    packed.d_values[~padding] = 1
    assert fused.gradient_norm() == pytest.approx((~padding).sum() ** 0.5)
    fused._step(0.1, 1.0)
    assert (packed.values[padding] == before[padding]).all()
    assert (packed.values[~padding] != before[~padding]).all()


def both_ways(name, count, **options):
    """Return a model's updates by the kernels and by torch, a task and some episodes of it."""
    model = make_from(CATALOGUE[name])
    same, config = copy.deepcopy(model), OptimizerConfig(epsilon=1e-3, **options)
    ways = KernelUpdates(FusedUnroll(model), config), TorchUpdates(same, TorchUnroll(same), config, ALONE)
    return ways, Bits(model.output_size), [part_of(as_float(episode)) for episode in episodes_for(model, count)]


CHANGES = {
    "in place": lambda model: torch.nn.init.zeros_(model.output.weight),
    "in their data": lambda model: [weight.data.zero_() for weight in model.parameters()],
    "to other memory": lambda model: vector_to_parameters(
        parameters_to_vector(model.parameters()) / 2, model.parameters()
    ),
    "frozen": lambda model: [
        weight.requires_grad_(False) for weight in (model.output.weight, *model.embedding.parameters())
    ],
    "without gradients": lambda model: model.zero_grad(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_weights_changed_in_the_model_are_taken(change):
    ways, task, parts = both_ways("dnc-tokens", 4)
    for updates in ways:
        updates.update(task, parts[0], 1e-2)
        CHANGES[change](updates.model)
    for part in parts[1:]:
        figures, expected = (updates.update(task, part, 1e-2) for updates in ways)
        assert figures[:3] == pytest.approx(expected[:3], rel=1e-4)
    for (name, ours), theirs in zip(ways[0].model.named_parameters(), ways[1].model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


def test_weights_changed_in_a_model_that_is_behind_are_refused():
    (updates, _), task, [first, second] = both_ways("dnc", 2)
    behind = updates.model
    updates.update(task, first, 1e-2)
    torch.nn.init.zeros_(behind.output.weight)
    with pytest.raises(RuntimeError, match=r"take it from `trainer\.model` after the update"):
        updates.update(task, second, 1e-2)


@pytest.mark.parametrize("called", [*CALLS[1:], "loss", "gradient_norm", "step_weights"])
def test_interrupt_after_any_kernel_leaves_an_update_whole_or_undone(called, monkeypatch):
    (updates, _), task, parts = both_ways("dnc-tokens", 3)
    (uninterrupted, _), *_ = both_ways("dnc-tokens", 3)
    uninterrupted.model.load_state_dict(updates.model.state_dict())
    name = "make_calls" if called in CALLS else called
    kernel = getattr(updates.fused.library, name)
    monkeypatch.setattr(updates.fused.library, name, lambda *given: interrupted(called, kernel, *given))
    with pytest.raises(KeyboardInterrupt):
        updates.update(task, parts[0], 1e-2)
    monkeypatch.undo()
    if called == "step_weights":
        uninterrupted.update(task, parts[0], 1e-2)
    for part in parts[1:]:
        assert updates.update(task, part, 1e-2) == uninterrupted.update(task, part, 1e-2)


def interrupted(called, kernel, *given):
    kernel(*given)
    if called not in CALLS or given[1]._obj.kernel == CALLS.index(called):
        raise KeyboardInterrupt


def test_batch_may_lie_in_memory_in_any_order():
    models = [make_from(CATALOGUE["dnc"]) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    [part] = [part_of(as_float(episode)) for episode in episodes_for(models[0], 1)]
    strided = Episode(*(tensor.transpose(0, 1).contiguous().transpose(0, 1) for tensor in part.episode[:3]))
    task, parts = Bits(models[0].output_size), [part, part_of(strided)]
    ours = [KernelUpdates(FusedUnroll(model), OptimizerConfig()) for model in models]
    first, second = (updates.update(task, each, 1e-2) for updates, each in zip(ours, parts, strict=True))
    assert first == second


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"inputs": torch.zeros(5, 3, 99)},
            r"inputs must be torch.float32 \[T, B, \d\], none of them 0, got torch.float32 \[5, 3, 99\]",
        ),
        ({"targets": torch.zeros(5, 2, 1)}, "targets must be"),
        ({"inputs": torch.zeros(5, 3, 3).double()}, "inputs must be torch.float32"),
        ({"inputs": torch.zeros(0, 3, 3)}, r"inputs must be torch.float32 \[T, B, \d\], none of them 0, got"),
        ({"mask": torch.zeros(5)}, r"mask must be \[5, 3\], got \[5\]"),
        ({"lengths": torch.tensor([1, 2, 6])}, "lengths must be from 0 to 5, the steps of inputs"),
        ({"lengths": torch.tensor([1, 2])}, "lengths must be 3 whole numbers"),
    ],
)
def test_batch_that_does_not_fit_is_refused(changes, message):
    model = make_from(CATALOGUE["dnc"])
    fused = FusedUpdate(FusedUnroll(model), rule_of(OptimizerConfig()))
    fits = Batch(torch.zeros(5, 3, model.input_size), torch.zeros(5, 3, model.output_size), torch.zeros(5, 3), None)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    with pytest.raises(ValueError, match=message):
        fused.update(fits._replace(**changes), ANSWERS[0], torch.sum, 0.1)
    fused.publish()
    assert all(torch.equal(before[name], weight) for name, weight in model.named_parameters())
