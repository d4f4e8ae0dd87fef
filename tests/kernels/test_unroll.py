"""Sequences by the kernels: outputs, states and gradients against autograd through the torch models in float64."""

import copy
import itertools
import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import plan
from kernels.library import library
from kernels.support import NoKernel, not_fused, not_trained
from kernels.unroll import FusedUnroll, unroll_by
from models.cells import LSTMConfig
from models.contract import unroll
from models.dnc import DNCConfig
from models.registry import config_values
from models.rnn import RNNConfig
from models.state import flatten, map_leaves
from tests.models.catalogue import CATALOGUE, KINDS, lived_in_state, make_from, random_inputs
from tests.models.drawn import any_model

TOLERANCE = 1e-4
"""Of gradients, relative to the largest of their tensor: float32 against float64."""

COVERED = [
    name
    for name, config in CATALOGUE.items()
    if not_fused(KINDS[type(config)], config_values(config)) is None and not_trained(config_values(config)) is None
]


@pytest.fixture(autouse=True)
def little_work_is_shared_too(monkeypatch):
    monkeypatch.setattr(plan, "LEAST_PER_THREAD", 1)


def unrolled(model, walk, inputs, state, lengths=None):
    """Return everything that comes of a sequence: outputs, the last state, and the gradients of a sum over both."""
    inputs = inputs.detach().clone().requires_grad_(model.embedding is None)
    state = map_leaves(lambda leaf: leaf.detach().clone().requires_grad_(), state)
    outputs, after = walk(inputs, state, lengths)[:2]
    results = {"outputs": outputs, **{f"after.{name}": leaf for name, leaf in flatten(after).items()}}
    generator = torch.Generator().manual_seed(1)
    shares = [torch.randn(result.shape, generator=generator, dtype=torch.float64) for result in results.values()]
    total = sum((result * share.to(result.dtype)).sum() for result, share in zip(results.values(), shares, strict=True))
    wanted = dict(model.named_parameters()) | {f"state.{name}": leaf for name, leaf in flatten(state).items()}
    if inputs.requires_grad:
        wanted["inputs"] = inputs
    gradients = torch.autograd.grad(total, list(wanted.values()), allow_unused=True)
    for (name, tensor), gradient in zip(wanted.items(), gradients, strict=True):
        results[f"d {name}"] = torch.zeros_like(tensor) if gradient is None else gradient
    return {name: result.detach() for name, result in results.items()}


def by_torch(model, inputs, state, lengths=None):
    return unrolled(model, lambda x, s, n: unroll(model, x, s, lengths=n), inputs, state, lengths)


def exactly(model, inputs, state, lengths=None):
    """Return the same by torch in float64."""
    exact = copy.deepcopy(model).double()
    inputs = inputs if model.embedding else inputs.double()
    return by_torch(exact, inputs.double(), map_leaves(torch.Tensor.double, state), lengths)


def error(actual, expected):
    scale = max(expected.abs().max().item(), 1e-6) if expected.numel() else 1
    return (actual.double() - expected).abs().max().item() / scale if expected.numel() else 0


def assert_near(actual, expected, rounded):
    """Assert that all is within the tolerance, or three times as near as torch comes in float32."""
    assert actual.keys() == expected.keys()
    for name in expected:
        allowed = max(TOLERANCE, 3 * error(rounded[name], expected[name]))
        assert error(actual[name], expected[name]) <= allowed, name


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


@pytest.mark.parametrize("start", ["fresh", "lived-in"])
@pytest.mark.parametrize("name", COVERED)
def test_sequence_and_gradients_are_those_of_the_model(name, start):
    model = make_from(CATALOGUE[name])
    state = model.initial_state(3) if start == "fresh" else lived_in_state(model, 3)
    inputs = random_inputs(model, 6, 3)
    fused = unrolled(model, FusedUnroll(model), inputs, state)
    assert_near(fused, exactly(model, inputs, state), by_torch(model, inputs, state))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(any_model(largest_memory=60), st.sampled_from([0.0, 1.0, 30.0]), st.booleans(), st.integers(0, 1000))
def test_gradients_are_those_of_any_model(config, scale, lived_in, seed):
    torch.manual_seed(seed)
    model = make_from(config, spread=0.3)
    state = lived_in_state(model, 2) if lived_in else model.initial_state(2)
    inputs = scale * random_inputs(model, 3, 2)
    fused = unrolled(model, FusedUnroll(model), inputs, state)
    assert_near(fused, exactly(model, inputs, state), by_torch(model, inputs, state))


@pytest.mark.parametrize(
    "name",
    [
        "dnc-stack",
        "dnc-2-read-3-write-heads",
        "dnc-skip-connections",
        "ntm-pytorch",
        "ntm-learned-starts",
        "ntm-before-controller-stack",
        "ntm-programs-before-controller",
        "rnn-gru",
    ],
)
def test_rows_of_mixed_lengths_stop_where_they_end(name):
    model, lengths = make_from(CATALOGUE[name]), torch.tensor([4, 0, 7, 1, 7])
    inputs, state = random_inputs(model, 7, 5), lived_in_state(model, 5)
    fused = unrolled(model, FusedUnroll(model), inputs, state, lengths)
    assert_near(fused, exactly(model, inputs, state, lengths), by_torch(model, inputs, state, lengths))
    assert (fused["outputs"][1:, 3] == 0).all()
    for leaf, before in flatten(state).items():
        assert torch.equal(fused[f"after.{leaf}"][1], before[1])


@pytest.mark.parametrize(
    "name",
    [
        "dnc-improved-lstm",
        "dnc-skip-connections",
        "ntm-pytorch",
        "ntm-before-controller-stack",
        "ntm-programs-before-controller",
        "rnn-lstm-projection",
    ],
)
@pytest.mark.parametrize("lengths", [None, torch.tensor([11, 3, 0])])
def test_less_memory_gives_the_same_bits(name, lengths):
    config = IMPROVED if name == "dnc-improved-lstm" else CATALOGUE[name]
    model = make_from(config)
    inputs, state = random_inputs(model, 11, 3), lived_in_state(model, 3)
    whole = unrolled(model, FusedUnroll(model), inputs, state, lengths)
    for budget in (0, 20_000, 40_000):
        assert_same(unrolled(model, FusedUnroll(model, memory_budget=budget), inputs, state, lengths), whole)


IMPROVED = DNCConfig(
    3, 2, memory_size=7, word_size=4, read_heads=2, write_heads=2, masking=True, deallocation=True, link_sharpening=True
)


def test_what_is_kept_is_within_the_budget():
    model = make_from(DNCConfig(3, 2, memory_size=64, word_size=8))
    inputs, state = random_inputs(model, 200, 2), model.initial_state(2)
    link = 2 * 64 * 64 * 4
    for budget in (60 * link, 120 * link, 1000 * link):
        fused = FusedUnroll(model, memory_budget=budget)
        outputs, _ = fused(inputs, state)
        outputs.sum().backward()
        assert fused.kept_bytes <= budget
        assert fused.kept_bytes > budget / 4 or budget == 1000 * link


@pytest.mark.parametrize("name", ["dnc-2-read-3-write-heads", "dnc-programs", "ntm-gru", "rnn-lstm-peepholes"])
@pytest.mark.parametrize("lengths", [None, torch.arange(33) % 9])
def test_bits_do_not_depend_on_the_threads(name, lengths):
    model = make_from(CATALOGUE[name])
    inputs, state = random_inputs(model, 8, 33), lived_in_state(model, 33)
    one, three = (unrolled(model, FusedUnroll(model, threads=threads), inputs, state, lengths) for threads in (1, 3))
    assert_same(one, three)


@pytest.mark.parametrize("name", ["dnc-2-read-3-write-heads", "dnc-stack", "dnc-programs", "ntm-pytorch", "rnn-gru"])
def test_row_has_the_same_bits_whoever_is_beside_it(name):
    model = make_from(CATALOGUE[name])
    inputs, state = random_inputs(model, 5, 19), lived_in_state(model, 19)
    together = unrolled(model, FusedUnroll(model, threads=2), inputs, state)
    for row in (0, 7, 18):
        own = map_leaves(lambda leaf, row=row: leaf[[row]], state)
        alone = unrolled(model, FusedUnroll(model), inputs[:, row : row + 1], own)
        for name_ in ("outputs", *(f"after.{leaf}" for leaf in flatten(state))):
            axis = 1 if name_ == "outputs" else 0
            assert torch.equal(alone[name_].squeeze(axis), together[name_].select(axis, row)), name_


def test_sequence_has_the_bits_of_its_steps():
    model = make_from(CATALOGUE["dnc-stack"])
    fused, inputs, state = FusedUnroll(model), random_inputs(model, 6, 3), lived_in_state(model, 3)
    whole, last = fused(inputs, state)
    pieces = []
    for piece in torch.split(inputs, [1, 3, 2]):
        outputs, state = fused(piece, state)
        pieces.append(outputs)
    assert torch.equal(torch.cat(pieces), whole)
    assert all(torch.equal(leaf, flatten(last)[name]) for name, leaf in flatten(state).items())


@pytest.mark.parametrize("threads", [1, 2])
def test_without_gradients_the_bits_are_the_same(threads):
    model = make_from(CATALOGUE["ntm-2-read-2-write-heads"])
    fused, inputs, state = FusedUnroll(model, threads=threads), random_inputs(model, 6, 9), lived_in_state(model, 9)
    outputs, last = fused(inputs, state)
    with torch.no_grad():
        again, last_again = fused(inputs, state)
    assert torch.equal(again, outputs)
    assert all(torch.equal(leaf, flatten(last)[name]) for name, leaf in flatten(last_again).items())
    assert not again.requires_grad
    assert fused.kept_bytes == 0


@pytest.mark.parametrize("name", ["dnc", "dnc-look-up-scaling", "ntm-programs"])
def test_another_memory_size_is_taken_from_the_state(name):
    model = make_from(CATALOGUE[name])
    fused, inputs = FusedUnroll(model), random_inputs(model, 4, 2)
    for size in (3, 21, 6):
        state = model.initial_state(2, size)
        assert_near(
            unrolled(model, fused, inputs, state), exactly(model, inputs, state), by_torch(model, inputs, state)
        )


@pytest.mark.parametrize("name", ["dnc", "ntm-random-starts", "ntm-learned-starts", "rnn-gru"])
def test_without_a_state_it_begins_at_the_initial_one(name):
    model = make_from(CATALOGUE[name])
    for fused in (FusedUnroll(model), unroll_by("torch", model)):
        for rows in (2, 2, 3):
            inputs = random_inputs(model, 3, rows)
            given, _ = fused(inputs, model.initial_state(rows))
            assert torch.equal(fused(inputs)[0], given)
            with torch.no_grad():
                for start in (*model.buffers(), *model.parameters()):
                    start.mul_(1.1)
            assert torch.equal(fused(inputs)[0], fused(inputs, model.initial_state(rows))[0])


def test_learned_start_has_its_gradient_without_a_state_too():
    model = make_from(CATALOGUE["ntm-learned-starts"])
    inputs = random_inputs(model, 3, 2)
    gradients = [
        torch.autograd.grad(FusedUnroll(model)(inputs, *state)[0].sum(), model.starts["memory"].values)[0]
        for state in ((), (model.initial_state(2),))
    ]
    assert torch.equal(*gradients)
    assert gradients[0].abs().sum() > 0


def test_weights_are_read_at_every_call():
    model = make_from(CATALOGUE["ntm"])
    fused, inputs, state = FusedUnroll(model), random_inputs(model, 3, 2), model.initial_state(2)
    before, _ = fused(inputs, state)
    with torch.no_grad():
        model.output.bias += 1
    after, _ = fused(inputs, state)
    torch.testing.assert_close(after, before + 1)


def test_weights_changed_before_backward_pass_are_refused():
    model = make_from(CATALOGUE["ntm"])
    outputs, _ = FusedUnroll(model)(random_inputs(model, 3, 2), model.initial_state(2))
    with torch.no_grad():
        model.output.weight += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        outputs.sum().backward()


def test_second_backward_pass_is_refused():
    model = make_from(CATALOGUE["ntm"])
    outputs, _ = FusedUnroll(model)(random_inputs(model, 3, 2), model.initial_state(2))
    outputs.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="one backward pass; this is its second"):
        outputs.sum().backward()


def test_two_sequences_may_be_under_way_at_once():
    model = make_from(CATALOGUE["dnc"])
    fused, first, second = FusedUnroll(model), random_inputs(model, 4, 2), random_inputs(model, 9, 3)

    def gradients(*sequences):
        model.zero_grad()
        totals = [fused(inputs, model.initial_state(inputs.shape[1]))[0].sum() for inputs in sequences]
        sum(totals).backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    apart = [a + b for a, b in zip(gradients(first), gradients(second), strict=True)]
    for together, expected in zip(gradients(first, second), apart, strict=True):
        torch.testing.assert_close(together, expected)


@pytest.mark.parametrize("of", ["outputs", "memory", "controller.c"])
def test_gradient_of_one_result_alone_is_that_of_the_model(of):
    model = make_from(CATALOGUE["ntm-learned-starts" if of == "memory" else "dnc"])
    inputs = random_inputs(model, 4, 2)

    def gradients(walk):
        outputs, after = walk(inputs, model.initial_state(2))[:2]
        result = outputs if of == "outputs" else flatten(after)[of]
        return torch.autograd.grad(result.square().sum(), list(model.parameters()), allow_unused=True)

    expected = gradients(lambda x, s: unroll(model, x, s))
    for ours, theirs in zip(gradients(FusedUnroll(model)), expected, strict=True):
        torch.testing.assert_close(ours, torch.zeros_like(ours) if theirs is None else theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("config", ["cell-clip", "dnc-clip"])
def test_gradient_of_cell_state_on_its_bound_matches_model(config):
    keeping = LSTMConfig(hidden_size=3, forget_bias=40, cell_clip=0.5 if config == "cell-clip" else 0)
    dnc = DNCConfig(3, 2, memory_size=4, word_size=2, controller=keeping, clip=0.5)
    model = make_from(RNNConfig(3, 2, controller=keeping) if config == "cell-clip" else dnc, spread=0)
    inputs, state = random_inputs(model, 2, 1), map_leaves(lambda leaf: leaf + 0.5, model.initial_state(1))
    fused = unrolled(model, FusedUnroll(model), inputs, state)
    assert_near(fused, exactly(model, inputs, state), by_torch(model, inputs, state))
    assert (fused["after.controller.c"] == 0.5).all()


WRONG = {
    "inputs-too-wide": (torch.zeros(4, 2, 5), 2, None, r"inputs must be of shape \[T, B, 3\]"),
    "no-steps": (torch.zeros(0, 2, 3), 2, None, r"inputs must be of shape \[T, B, 3\], none of them 0"),
    "no-batch-axis": (torch.zeros(4, 3), 2, None, r"inputs must be of shape \[T, B, 3\]"),
    "state-of-other-rows": (torch.zeros(4, 2, 3), 3, None, r"state leaf 'controller.h': expected shape \[2, 5\]"),
    "float64": (torch.zeros(4, 2, 3).double(), 2, None, "inputs must be float32 on the CPU, got torch.float64"),
    "lengths-too-long": (torch.zeros(4, 2, 3), 2, torch.tensor([5, 1]), "lengths must be from 0 to 4"),
    "lengths-negative": (torch.zeros(4, 2, 3), 2, torch.tensor([-1, 1]), "lengths must be from 0 to 4"),
    "lengths-of-other-rows": (torch.zeros(4, 2, 3), 2, torch.tensor([1]), "lengths must be 2 whole numbers"),
    "lengths-with-fractions": (torch.zeros(4, 2, 3), 2, torch.tensor([1.5, 1]), "lengths must be 2 whole numbers"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused(case):
    inputs, rows, lengths, message = WRONG[case]
    model = make_from(CATALOGUE["dnc"])
    with pytest.raises(ValueError, match=message):
        FusedUnroll(model)(inputs, model.initial_state(rows), lengths)


def test_inputs_and_states_may_have_any_strides():
    model = make_from(CATALOGUE["dnc-odd-sizes"])
    inputs, state = random_inputs(model, 4, 3), lived_in_state(model, 3)
    turned = map_leaves(lambda leaf: leaf.transpose(0, -1).contiguous().transpose(0, -1), state)
    strided = inputs.transpose(0, 1).contiguous().transpose(0, 1)
    assert not strided.is_contiguous()
    assert_same(
        unrolled(model, FusedUnroll(model), strided, turned), unrolled(model, FusedUnroll(model), inputs, state)
    )


@pytest.mark.parametrize("name", ["dnc-improved", "dnc-sparse-links", "dnc-dropout", "rnn-lstm-layer-norm"])
def test_untrainable_model_is_unrolled_by_torch_with_logged_reason(name, caplog):
    model = make_from(CATALOGUE[name]).train()
    with pytest.raises(NoKernel, match="there is no fused kernel"):
        FusedUnroll(model)
    with caplog.at_level(logging.INFO):
        walk = unroll_by("auto", model)
    assert walk.path == "torch"
    assert "there is no fused kernel" in caplog.text
    inputs = random_inputs(model.eval(), 3, 2)
    expected, _, _ = unroll(model, inputs, model.initial_state(2))
    assert torch.equal(walk(inputs, model.initial_state(2))[0], expected)


def test_model_that_begins_to_drop_is_refused_then():
    model = make_from(CATALOGUE["dnc-dropout"]).eval()
    fused, inputs = FusedUnroll(model), random_inputs(model, 3, 2)
    fused(inputs, model.initial_state(2))
    model.train()
    with pytest.raises(NoKernel, match="its controller drops"):
        fused(inputs, model.initial_state(2))


def test_model_with_a_kernel_goes_by_it():
    model = make_from(CATALOGUE["dnc"])
    assert unroll_by("auto", model).path == "fused"
    assert unroll_by("auto", model.double()).path == "torch"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dnc", "ntm", "rnn"])
def test_training_curves_of_kernel_and_autograd_coincide(name):
    models = [make_from(CATALOGUE[name], spread=0.3)]
    models.append(copy.deepcopy(models[0]))
    walks = [FusedUnroll(models[0]), lambda x, s: unroll(models[1], x, s)[:2]]
    optimizers = [torch.optim.Adam(model.parameters(), lr=1e-3) for model in models]
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        inputs = torch.randn(6, 4, models[0].input_size, generator=generator)
        targets = torch.roll(inputs, 1, 0)[..., : models[0].output_size]
        losses = []
        for model, walk, optimizer in zip(models, walks, optimizers, strict=True):
            outputs, _ = walk(inputs, model.initial_state(4))
            loss = torch.nn.functional.mse_loss(outputs, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_weight_gradients_do_not_depend_on_thread_count():
    model = make_from(CATALOGUE["rnn-sizes-of-1"])
    inputs, state = random_inputs(model, 3, 40), model.initial_state(40)
    one, many = (unrolled(model, FusedUnroll(model, threads=threads), inputs, state) for threads in (1, 10))
    assert_same(one, many)
    assert np.isfinite([gradient.abs().sum().item() for gradient in one.values()]).all()


def test_library_is_there():
    assert library() is not None
    assert len(list(itertools.islice(COVERED, 30))) == 30
