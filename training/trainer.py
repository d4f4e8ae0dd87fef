"""The training loop: draw an episode, unroll, step the optimiser, validate now and then."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from models.kernels.sequence import UnrollPath, unroll_by
from models.registry import build, config_values
from training.config import Preset
from training.evaluation import bit_errors

VALIDATION_SEED = 1_000_000_007
"""The sequences that decide when to stop: the same at every validation, never those of training or of evaluation."""


class Update(NamedTuple):
    """What one update did."""

    loss: float
    """Mean cross-entropy in nats per bit."""
    errors: float
    """Wrong bits per sequence of its batch."""
    skipped: bool
    """The gradient was not finite, and the weights were left as they were."""


@dataclass
class Progress:
    """How far a run has come; everything that is not a tensor and that resuming needs."""

    update: int = 0
    sequences: int = 0
    skipped: int = 0
    validation_errors: float = math.inf
    validations_at_target: int = 0


class Trainer:
    """One training run, from a fresh start or from where a checkpoint left it.

    The same preset gives the same weights bit for bit on one CPU thread, however often the run was interrupted.

    path: whether sequences are unrolled by the fused kernels or by torch; auto takes the kernels where they can train
    the model. Raises NoKernel, for fused.
    """

    def __init__(self, preset: Preset, device: str | torch.device = "cpu", path: UnrollPath = "auto") -> None:
        self.preset = preset
        self.progress = Progress()
        self.device = torch.device(device)
        torch.manual_seed(preset.training.seed)
        self.model = build(preset.kind, config_values(preset.model)).to(self.device)
        self.unroll = unroll_by(path, self.model)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=preset.training.learning_rate)
        self.generator = torch.Generator().manual_seed(preset.training.seed)

    @property
    def finished(self) -> bool:
        return self.reached_target or self.progress.update >= self.preset.training.updates

    @property
    def reached_target(self) -> bool:
        return self.progress.validations_at_target >= self.preset.training.patience

    def run(self, after_update: Callable[[Update], bool]) -> None:
        """Train until finished, or until `after_update`, called after each update, returns False."""
        while not self.finished:
            if not after_update(self.update()):
                return

    def update(self) -> Update:
        """Draw a batch, change the weights once, and validate if it is time to."""
        config, task = self.preset.training, self.preset.task
        episode = task.sample(self.generator, config.batch_size)
        episode = type(episode)(*(tensor.to(self.device) for tensor in episode))
        outputs, _ = self.unroll(episode.inputs)
        loss = task.loss(outputs, episode)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = clip_grad_norm_(self.model.parameters(), config.clip_norm)
        skipped = not bool(torch.isfinite(norm))
        if not skipped:
            for group in self.optimizer.param_groups:
                group["lr"] = config.rate(self.progress.update)
            self.optimizer.step()

        self.progress.update += 1
        self.progress.sequences += config.batch_size
        self.progress.skipped += skipped
        if self.progress.update % config.validate_every == 0:
            self._validate()
        return Update(loss.item(), task.errors(outputs, episode).float().mean().item(), skipped)

    def _validate(self) -> None:
        config, task = self.preset.training, self.preset.task
        errors = bit_errors(
            self.model, task, task.longest, config.validation_sequences, VALIDATION_SEED, unroll=self.unroll
        )
        self.progress.validation_errors = errors.mean().item()
        at_target = self.progress.validation_errors <= config.target_errors
        self.progress.validations_at_target = self.progress.validations_at_target + 1 if at_target else 0

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor that resuming needs: weights, optimiser state, random generators."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        names = [name for name, _ in self.model.named_parameters()]
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{names[index]}.{key}": value for key, value in state.items()}
        tensors["generator.data"] = self.generator.get_state()
        tensors["generator.torch"] = torch.get_rng_state()
        return tensors

    def restore(self, tensors: dict[str, Tensor], progress: dict[str, Any]) -> None:
        """Go on from what `tensors()` and `progress` were when they were saved."""
        self.progress = Progress(**progress)
        weights = {name.removeprefix("model."): tensors[name] for name in tensors if name.startswith("model.")}
        self.model.load_state_dict(weights)
        optimizer = self.optimizer.state_dict()
        for index, (name, _) in enumerate(self.model.named_parameters()):
            prefix = f"optimizer.{name}."
            state = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            if state:
                optimizer["state"][index] = state
        self.optimizer.load_state_dict(optimizer)
        self.generator.set_state(tensors["generator.data"])
        torch.set_rng_state(tensors["generator.torch"])
