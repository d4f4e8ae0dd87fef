"""Updates of weights, each rule against a naive computation."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from models.config import ConfigError
from training.optimizers import GravesRMSProp, OptimizerConfig, build_optimizer, finish_gradients


def linear(weights, gradient):
    """Return a layer of one output with these weights and this gradient."""
    model = nn.Linear(len(weights), 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([weights]))
    model.weight.grad = torch.tensor([gradient])
    return model


def stepped(optimizer_class, gradients, **options):
    """Return a weight that began at 0 after a step with each of the gradients."""
    weight = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = optimizer_class([weight], **options)
    for gradient in gradients:
        weight.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
    return weight.item()


# Adam


def adam_by_its_equations(config, weight, gradients):
    """Return a weight in float64 after the updates of the paper's Algorithm 1, with our regulariser and clipping."""
    (b1, b2), w = config.betas, weight.double()
    m = v = torch.zeros_like(w)
    for t, gradient in enumerate(gradients, 1):
        g = gradient.double() + config.l2 * w
        g = g * min(1.0, config.clip_norm / g.norm().item())
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        w = w - config.rate(t - 1, len(gradients)) * (m / (1 - b1**t)) / ((v / (1 - b2**t)).sqrt() + config.epsilon)
    return w


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-4)])
def test_adam_is_its_equations_for_many_shapes_and_options(dtype, tolerance):
    for seed in range(24):
        generator = torch.Generator().manual_seed(seed)
        size = int(torch.randint(1, 70, (), generator=generator))
        a, b, c = torch.rand(3, generator=generator).tolist()
        schedule = ("constant", "linear", "cosine", "exponential")[seed % 4]
        options = {"betas": (b, c), "epsilon": 1e-6, "l2": seed % 2 * a, "clip_norm": b}
        config = OptimizerConfig("adam", 0.1 * a, schedule, 0.1, seed % 3, **options)
        model = nn.Linear(size, 1, bias=False, dtype=dtype)
        gradients = list(torch.randn(12, 1, size, dtype=dtype, generator=generator))
        expected = adam_by_its_equations(config, model.weight.detach(), gradients)
        optimizer = build_optimizer(config, model)
        for update, gradient in enumerate(gradients):
            model.weight.grad = gradient.clone()
            finish_gradients(config, model)
            optimizer.param_groups[0]["lr"] = config.rate(update, len(gradients))
            optimizer.step()
        assert_close(model.weight.detach().double(), expected, rtol=tolerance, atol=tolerance)


def test_adam_goes_on_from_the_state_of_torchs_unfused_one():
    config = OptimizerConfig(learning_rate=0.01, clip_norm=0.0)
    straight, saved = (linear([0.5, -1.0, 2.0], [0.0] * 3) for _ in range(2))
    optimizers = [build_optimizer(config, straight), torch.optim.Adam(saved.parameters(), 0.01, foreach=False)]
    for update in range(20):
        if update == 10:
            resumed = build_optimizer(config, saved)
            resumed.load_state_dict({**resumed.state_dict(), "state": optimizers[1].state_dict()["state"]})
            optimizers[1] = resumed
        for model, optimizer in zip((straight, saved), optimizers, strict=True):
            model.weight.grad = torch.tensor([[1.0, -3.0, 0.1]]) * math.cos(update)
            optimizer.step()
    assert_close(saved.weight, straight.weight, rtol=1e-6, atol=1e-7)


# RMSProp as Graves has it


def test_rmsprop_of_graves_is_its_equations_over_many_steps():
    rate, decay, momentum, epsilon = 0.01, 0.95, 0.9, 1e-4
    gradients = (torch.randn(300, 4, dtype=torch.float64) * torch.tensor([1e-4, 0.01, 1.0, 100.0])).tolist()
    weights = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimizer = GravesRMSProp([weights], rate, decay, momentum, epsilon)
    n, m, d, w = ([0.0] * 4 for _ in range(4))
    for gradient in gradients:
        weights.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
        for i, g in enumerate(gradient):
            n[i] = decay * n[i] + (1 - decay) * g * g
            m[i] = decay * m[i] + (1 - decay) * g
            d[i] = momentum * d[i] - rate * g / math.sqrt(n[i] - m[i] ** 2 + epsilon)
            w[i] += d[i]
        assert_close(weights.detach(), torch.tensor(w, dtype=torch.float64), rtol=1e-10, atol=0)


def test_rmsprop_of_torch_steps_further_at_small_gradients():
    gradient, rate, epsilon = 1e-3, 0.01, 1e-4
    spread = 0.05 * gradient**2 - (0.05 * gradient) ** 2
    ours = stepped(GravesRMSProp, [gradient], lr=rate, decay=0.95, momentum=0.9, epsilon=epsilon)
    options = {"alpha": 0.95, "eps": epsilon, "momentum": 0.9, "centered": True}
    torchs = stepped(torch.optim.RMSprop, [gradient], lr=rate, **options)
    assert ours == pytest.approx(-rate * gradient / math.sqrt(spread + epsilon))
    assert torchs == pytest.approx(-rate * gradient / (math.sqrt(spread) + epsilon))
    assert torchs / ours > 30


def test_rmsprop_of_torch_is_the_same_where_epsilon_is_nothing():
    gradients = torch.randn(100, dtype=torch.float64).tolist()
    ours = stepped(GravesRMSProp, gradients, lr=0.01, epsilon=1e-30)
    options = {"alpha": 0.95, "eps": 1e-30, "momentum": 0.9, "centered": True}
    assert ours == pytest.approx(stepped(torch.optim.RMSprop, gradients, lr=0.01, **options), rel=1e-9)


def test_rmsprop_stays_finite_where_a_great_gradient_hardly_changes():
    weight = torch.zeros(64, requires_grad=True)
    optimizer = GravesRMSProp([weight], lr=1e-4)
    for step in range(1000):
        weight.grad = torch.linspace(1e3, 1e4, 64) * (1 + 1e-6 * (step % 3))
        optimizer.step()
        assert weight.isfinite().all()


def test_weight_without_a_gradient_is_left_alone():
    moved, left = (torch.ones(2, requires_grad=True) for _ in range(2))
    moved.grad = torch.ones(2)
    GravesRMSProp([left, moved], lr=0.1).step()
    assert left.tolist() == [1.0, 1.0]
    assert (moved < 1).all()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("adam", {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8}),
        ("rmsprop", {"lr": 1e-4, "decay": 0.95, "momentum": 0.9, "epsilon": 1e-4}),
    ],
)
def test_optimizer_has_the_defaults_of_its_kind(kind, expected):
    (group,) = build_optimizer(OptimizerConfig(kind), nn.Linear(2, 2)).param_groups
    assert {name: group[name] for name in expected} == expected


def test_optimizer_has_the_values_that_are_given():
    adam = OptimizerConfig(learning_rate=0.1, betas=(0.8, 0.9), epsilon=1e-5)
    (group,) = build_optimizer(adam, nn.Linear(2, 2)).param_groups
    assert (group["lr"], group["betas"], group["eps"]) == (0.1, (0.8, 0.9), 1e-5)
    rmsprop = OptimizerConfig("rmsprop", learning_rate=0.1, decay=0.8, momentum=0.5, epsilon=1e-5)
    (group,) = build_optimizer(rmsprop, nn.Linear(2, 2)).param_groups
    assert (group["lr"], group["decay"], group["momentum"], group["epsilon"]) == (0.1, 0.8, 0.5, 1e-5)


# Schedules


@pytest.mark.parametrize(
    ("schedule", "final_rate", "expected"),
    [
        ("constant", 0.1, [2.0, 2.0, 2.0, 2.0]),
        ("linear", 0.1, [2.0, 1.55, 1.1, 0.2]),
        ("linear", 0.0, [2.0, 1.5, 1.0, 0.0]),
        ("cosine", 0.1, [2.0, 0.2 + 0.9 * (1 + math.sqrt(0.5)), 1.1, 0.2]),
        ("exponential", 0.01, [2.0, 2.0 / math.sqrt(10), 0.2, 0.02]),
    ],
)
def test_rate_at_the_first_middle_and_last_update(schedule, final_rate, expected):
    config = OptimizerConfig(learning_rate=2.0, schedule=schedule, final_rate=final_rate)
    assert [config.rate(update, 101) for update in (0, 25, 50, 100)] == pytest.approx(expected)


def test_rate_rises_over_the_warmup_and_then_falls():
    config = OptimizerConfig(learning_rate=2.0, final_rate=0.0, warmup=4)
    rates = [config.rate(update, 15) for update in range(15)]
    assert rates[:5] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0])
    assert rates[4:] == pytest.approx([2.0 - 0.2 * step for step in range(11)])


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "exponential"])
def test_rate_of_a_single_update_is_the_first(schedule):
    assert OptimizerConfig(learning_rate=2.0, schedule=schedule).rate(0, 1) == 2.0


def test_rate_of_a_run_that_is_all_warmup_never_falls():
    config = OptimizerConfig(learning_rate=1.0, warmup=10)
    assert [config.rate(update, 3) for update in range(3)] == pytest.approx([0.1, 0.2, 0.3])


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"learning_rate": -1.0}, "OptimizerConfig.learning_rate must be at least 0 and finite, got -1.0"),
        ({"learning_rate": math.inf}, "OptimizerConfig.learning_rate must be at least 0 and finite, got inf"),
        ({"epsilon": math.nan}, "OptimizerConfig.epsilon must be at least 0 and finite, got nan"),
        ({"final_rate": -0.1}, r"OptimizerConfig.final_rate must be in \[0, 1\], got -0.1"),
        ({"final_rate": 1.5}, r"OptimizerConfig.final_rate must be in \[0, 1\], got 1.5"),
        ({"warmup": -1}, "OptimizerConfig.warmup must be at least 0, got -1"),
        ({"decay": 1.0}, r"OptimizerConfig.decay must be in \[0, 1\), got 1.0"),
        ({"betas": (0.9, -0.1)}, r"OptimizerConfig.betas\[1\] must be in \[0, 1\), got -0.1"),
        ({"momentum": math.nan}, r"OptimizerConfig.momentum must be in \[0, 1\), got nan"),
        ({"momentum": 1.0}, r"OptimizerConfig.momentum must be in \[0, 1\), got 1.0"),
        ({"l1": -1.0}, "OptimizerConfig.l1 must be at least 0 and finite, got -1.0"),
        ({"l2": math.inf}, "OptimizerConfig.l2 must be at least 0 and finite, got inf"),
        ({"clip_norm": -1.0}, "OptimizerConfig.clip_norm must be at least 0 and finite, got -1.0"),
        (
            {"schedule": "exponential", "final_rate": 0.0},
            "OptimizerConfig.final_rate must be above 0 with schedule 'exponential', got 0",
        ),
    ],
)
def test_value_that_cannot_be_is_named(changes, complaint):
    with pytest.raises(ConfigError, match=complaint):
        OptimizerConfig(**changes)


# Regularisers and clipping


@pytest.mark.parametrize(
    ("l1", "l2", "expected"),
    [
        (0.0, 0.0, [1.0, 1.0, 1.0]),
        (0.25, 0.0, [1.25, 0.75, 1.0]),
        (0.0, 0.5, [1.25, 0.0, 1.0]),
        (0.25, 0.5, [1.5, -0.25, 1.0]),
    ],
)
def test_regularisers_add_their_gradients(l1, l2, expected):
    model = linear([0.5, -2.0, 0.0], [1.0, 1.0, 1.0])
    finish_gradients(OptimizerConfig(l1=l1, l2=l2, clip_norm=0.0), model)
    assert model.weight.grad.tolist() == [expected]


def test_regularised_gradient_is_that_of_the_loss_with_the_penalties():
    model = linear([0.5, -2.0, 0.25], [0.0, 0.0, 0.0])
    weights = model.weight.detach().clone().requires_grad_()
    (0.1 * weights.abs().sum() + 0.3 / 2 * weights.square().sum()).backward()
    finish_gradients(OptimizerConfig(l1=0.1, l2=0.3, clip_norm=0.0), model)
    assert_close(model.weight.grad, weights.grad)


def test_gradient_is_clipped_by_value_and_then_by_norm():
    model = linear([0.0, 0.0, 0.0], [3.0, -0.5, -10.0])
    norm = finish_gradients(OptimizerConfig(clip_value=1.0, clip_norm=0.75), model)
    assert norm.item() == pytest.approx(math.sqrt(9 + 0.25 + 100))
    assert model.weight.grad.flatten().tolist() == pytest.approx([0.5, -0.25, -0.5], rel=1e-5)


def test_gradient_below_the_norm_is_left_alone():
    model = linear([0.0, 0.0], [0.25, -0.5])
    finish_gradients(OptimizerConfig(clip_norm=1.0), model)
    assert model.weight.grad.tolist() == [[0.25, -0.5]]


def test_gradient_is_clipped_to_the_bits_of_torchs_own_clipping():
    generator = torch.Generator().manual_seed(0)
    for bound in torch.rand(300, generator=generator).tolist():
        direction = torch.randn(3, generator=generator)
        size = bound + 2e-7 * torch.randint(-20, 20, (), generator=generator)
        ours, theirs = (linear([0.0] * 3, (size * direction / direction.norm()).tolist()) for _ in range(2))
        finish_gradients(OptimizerConfig(clip_norm=bound), ours)
        nn.utils.clip_grad_norm_(theirs.parameters(), bound)
        assert torch.equal(ours.weight.grad, theirs.weight.grad)


def test_gradient_is_not_clipped_without_bounds():
    model = linear([0.0, 0.0], [300.0, -400.0])
    assert finish_gradients(OptimizerConfig(clip_norm=0.0), model).item() == 500.0
    assert model.weight.grad.tolist() == [[300.0, -400.0]]


def test_penalties_are_clipped_with_the_rest():
    model = linear([100.0], [0.0])
    norm = finish_gradients(OptimizerConfig(l2=1.0, clip_norm=1.0), model)
    assert norm.item() == 100.0
    assert model.weight.grad.item() == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_nonfinite_gradient_returns_its_norm_and_stays_unclipped(bad):
    model = linear([0.0, 0.0], [bad, 2.0])
    norm = finish_gradients(OptimizerConfig(clip_value=1.0, clip_norm=1.0), model)
    assert not norm.isfinite()
    assert model.weight.grad[0, 1] == 2.0
