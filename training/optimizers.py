"""Optimisers, schedules of the learning rate, regularisers, clipping."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_value_
from torch.optim import Adam, Optimizer

from models.config import ConfigError, require_at_least


@dataclass(frozen=True)
class OptimizerConfig:
    """kind: adam (Kingma & Ba, arXiv 1412.6980), or rmsprop as Graves has it (`GravesRMSProp`).

    learning_rate: if None, 1e-3 for adam and 1e-4 for rmsprop; schedule: the curve by which it falls over the updates,
    to final_rate times itself at the last one; warmup: the updates at the start in which it rises linearly from 0.
    betas: of adam; decay and momentum: of rmsprop; epsilon: if None, 1e-8 for adam and 1e-4 for rmsprop.
    l1, l2: the loss to minimise is the task's + l1 |w| + l2 / 2 w^2, summed over all weights.
    clip_value: each entry of the gradient is clipped to [-clip_value, clip_value]; clip_norm: the gradient is then
    scaled down to this norm; 0 for neither.
    """

    kind: Literal["adam", "rmsprop"] = "adam"
    learning_rate: float | None = None
    schedule: Literal["constant", "linear", "cosine", "exponential"] = "linear"
    final_rate: float = 0.05
    warmup: int = 0
    betas: tuple[float, float] = (0.9, 0.999)
    decay: float = 0.95
    momentum: float = 0.9
    epsilon: float | None = None
    l1: float = 0.0
    l2: float = 0.0
    clip_value: float = 0.0
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        require_at_least(self, 0, "warmup")
        for name in ("learning_rate", "epsilon", "l1", "l2", "clip_value", "clip_norm"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ConfigError(f"OptimizerConfig.{name} must be at least 0 and finite, got {value}")
        if not 0 <= self.final_rate <= 1:
            raise ConfigError(f"OptimizerConfig.final_rate must be in [0, 1], got {self.final_rate}")
        below_one = {
            "decay": self.decay,
            "momentum": self.momentum,
            "betas[0]": self.betas[0],
            "betas[1]": self.betas[1],
        }
        for name, value in below_one.items():
            if not 0 <= value < 1:
                raise ConfigError(f"OptimizerConfig.{name} must be in [0, 1), got {value}")
        if self.schedule == "exponential" and self.final_rate == 0:
            raise ConfigError("OptimizerConfig.final_rate must be above 0 with schedule 'exponential', got 0")

    @property
    def own_epsilon(self) -> float:
        """epsilon, or that of the kind."""
        return {"adam": 1e-8, "rmsprop": 1e-4}[self.kind] if self.epsilon is None else self.epsilon

    def rate(self, update: int, updates: int) -> float:
        """Return the learning rate of an update, by its number, counted from 0, and the number of all updates."""
        first = self.learning_rate
        if first is None:
            first = {"adam": 1e-3, "rmsprop": 1e-4}[self.kind]
        if update < self.warmup:
            return first * (update + 1) / self.warmup
        progress = min(1.0, (update - self.warmup) / max(1, updates - self.warmup - 1))
        last = self.final_rate
        factor = {
            "constant": 1.0,
            "linear": 1 - (1 - last) * progress,
            "cosine": last + (1 - last) * (1 + math.cos(math.pi * progress)) / 2,
            "exponential": last**progress,
        }[self.schedule]
        return float(first * factor)


class GravesRMSProp(Optimizer):
    """RMSProp, centred, with momentum and with epsilon inside the root (Graves, arXiv 1308.0850, equations 38-41).

        n_t = decay n_{t-1} + (1 - decay) g_t^2
        m_t = decay m_{t-1} + (1 - decay) g_t
        d_t = momentum d_{t-1} - learning_rate g_t / sqrt(n_t - m_t^2 + epsilon)
        w_t = w_{t-1} + d_t

    torch's own has epsilon outside the root, which steps much further where gradients are small.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float, decay: float = 0.95, momentum: float = 0.9, epsilon: float = 1e-4
    ) -> None:
        super().__init__(params, {"lr": lr, "decay": decay, "momentum": momentum, "epsilon": epsilon})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every weight that has a gradient."""
        assert closure is None, "this optimiser takes the gradients that are there"
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not weights:
                continue
            gradients = [weight.grad for weight in weights]
            squares, means, changes = (self._kept(weights, name) for name in ("square", "mean", "change"))
            rest = 1 - group["decay"]
            torch._foreach_lerp_(squares, torch._foreach_mul(gradients, gradients), rest)
            torch._foreach_lerp_(means, gradients, rest)
            spread = torch._foreach_mul(means, means)
            torch._foreach_neg_(spread)
            torch._foreach_add_(spread, squares)
            torch._foreach_clamp_min_(spread, 0.0)  # rounding makes it negative if a large gradient hardly changes
            torch._foreach_add_(spread, group["epsilon"])
            torch._foreach_sqrt_(spread)
            torch._foreach_mul_(changes, group["momentum"])
            torch._foreach_addcdiv_(changes, gradients, spread, -group["lr"])
            torch._foreach_add_(weights, changes)

    def _kept(self, weights: list[Tensor], name: str) -> list[Tensor]:
        for weight in weights:
            if name not in self.state[weight]:
                self.state[weight][name] = torch.zeros_like(weight)
        return [self.state[weight][name] for weight in weights]


def build_optimizer(config: OptimizerConfig, model: nn.Module) -> Optimizer:
    """Return the optimiser of all weights of a model."""
    rate = config.rate(0, 1)
    if config.kind == "rmsprop":
        return GravesRMSProp(model.parameters(), rate, config.decay, config.momentum, config.own_epsilon)
    # fused: one pass over each weight, not seven
    return Adam(model.parameters(), rate, config.betas, config.own_epsilon, fused=True)


def finish_gradients(config: OptimizerConfig, model: nn.Module) -> Tensor:
    """Add the regularisers to the gradients, clip them, and return their norm before clipping.

    If the norm is not finite, they are not clipped, so that the gradient at fault can be found.
    """
    weights = [weight for weight in model.parameters() if weight.grad is not None]
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    with torch.no_grad():
        for weight, gradient in zip(weights, gradients, strict=True) if config.l1 or config.l2 else ():
            gradient += config.l1 * weight.sign() + config.l2 * weight
    norm = clipped = _norm(gradients)
    if not math.isfinite(norm.item()):
        return norm
    if config.clip_value:
        clip_grad_value_(weights, config.clip_value)
        clipped = _norm(gradients)
    if config.clip_norm and (factor := config.clip_norm / (clipped + 1e-6)) < 1:  # torch's own factor
        torch._foreach_mul_(gradients, factor)
    return norm


def _norm(gradients: list[Tensor]) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    return norm
