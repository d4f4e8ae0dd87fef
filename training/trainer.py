"""The training loop: draw an episode, unroll, step the optimiser, validate now and then."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from kernels.unroll import Unroll, UnrollPath, unroll_by
from models.config import ConfigError
from models.contract import MemoryModel
from models.registry import build, config_values
from training.distributed import ALONE, Processes
from training.evaluation import measure, nothing_asked
from training.preset import RECENT, Preset
from training.tasks import Episode, Task, join
from training.updates import Update, updates_of

VALIDATION_SEED = 1_000_000_007
"""The seed of the validation sequences: the same at every validation, never those of training or of evaluation."""

REMEDY = "lower optimizer.learning_rate or optimizer.clip_norm, or try another seed"


class NotFinite(RuntimeError):
    """A run whose numbers are not finite, so it cannot go on; the message names update, tensor and seed."""


@dataclass
class Progress:
    """The progress of a run: everything that resuming needs and that is not a tensor.

    stage: the number of lessons of the curriculum that are over. recent_losses, recent_errors: of the last RECENT
    updates of this stage that asked for something. converged_after: sequences until the first validation at the target.
    not_finite: updates left out in a row. initial_weights: SHA-256 of the file of weights that the run began from, if
    there is one. rescheduled: the updates after which a finished schedule of the learning rate was extended.
    """

    update: int = 0
    sequences: int = 0
    stage: int = 0
    skipped: int = 0
    not_finite: int = 0
    recent_losses: list[float] = field(default_factory=list)
    recent_errors: list[float] = field(default_factory=list)
    validation_errors: float = math.inf
    validations_at_target: int = 0
    converged_after: int | None = None
    initial_weights: str | None = None
    rescheduled: list[int] = field(default_factory=list)


class Trainer:
    """One training run, fresh or resumed from a checkpoint.

    The same preset gives the same weights bit for bit on one CPU thread, however often the run was interrupted.

    path: unroll sequences by the fused kernels or by torch; auto takes the kernels if they can train the model.
    processes: the processes that train the model, each with a trainer of the same preset and at least one sequence of
    each batch. Raises NoKernel, for fused.
    """

    def __init__(
        self,
        preset: Preset,
        device: str | torch.device = "cpu",
        path: UnrollPath = "auto",
        processes: Processes = ALONE,
    ) -> None:
        self.preset = preset
        self.processes = processes
        self.progress = Progress()
        self.device = torch.device(device)
        torch.manual_seed(preset.training.seed)
        model = build(preset.kind, config_values(preset.model)).to(self.device)
        self._unroll = unroll_by(path, model, processes.size)
        self.updates = updates_of(model, self._unroll, preset.optimizer, processes)
        self.generator = torch.Generator().manual_seed(preset.training.seed)
        self._lessons = [*(preset.task.with_options(stage.options) for stage in preset.curriculum), preset.task]

    @property
    def model(self) -> MemoryModel[Any]:
        """The model with its present weights; after another update it must be asked for again."""
        return self.updates.model

    @property
    def unroll(self) -> Unroll:
        """`unroll` of the model with its present weights; after another update it must be asked for again."""
        self.updates.publish()
        return self._unroll

    @property
    def task(self) -> Task:
        """The task of this stage of the curriculum."""
        return self._lessons[self.progress.stage]

    @property
    def finished(self) -> bool:
        return self.reached_target or self.progress.update >= self.preset.training.updates

    @property
    def reached_target(self) -> bool:
        patience = self.preset.training.patience
        return bool(patience) and self.progress.validations_at_target >= patience

    def run(self, after_update: Callable[[Update], bool]) -> None:
        """Train until finished, or until `after_update`, called after each update, returns False. Raises NotFinite."""
        try:
            while not self.finished:
                if not after_update(self.update()):
                    return
        finally:
            self.updates.end()

    def update(self) -> Update:
        """Draw a batch, update the weights, and validate if it is due. Raises NotFinite."""
        config, progress = self.preset.training, self.progress
        rate = self.preset.optimizer.rate(progress.update, config.updates)
        part = self.processes.part(self._episode())
        self.processes.own_noise(config.seed, progress.update)
        update = self.updates.update(self.task, part, rate)
        self._count(update)
        if progress.update % config.validate_every == 0:
            self._validate()
        return update

    def _episode(self) -> Episode:
        config = self.preset.training
        if not config.mixed_lengths:
            return self.task.sample(self.generator, config.batch_size)
        return join(self.task.sample(self.generator, 1) for _ in range(config.batch_size))

    def check_tasks(self) -> None:
        """Draw a sequence of every lesson and one of validation, or several, until one asks for something.

        Raises ConfigError if there can be none, or if as many as a validation has ask for nothing.
        """
        sequences = self.preset.training.validation_sequences
        for lesson in self._lessons:
            _require_asked(lesson, sequences)
        greatest = self.preset.task.greatest
        try:
            _require_asked(greatest, sequences)
        except ConfigError as error:
            sizes = {name: size for name, (_, size) in greatest.sizes.items()}
            raise ConfigError(f"validation has every size at its greatest, {sizes}, but {error}") from error

    def check_weights(self) -> None:
        """Raise NotFinite if a weight is not finite: such a run has nothing to save, and cannot go on."""
        for name, weight in self.model.named_parameters():
            if not weight.isfinite().all():
                raise NotFinite(f"{self._where}: {name} is not finite; {REMEDY}")

    @property
    def _where(self) -> str:
        return f"update {self.progress.update}, seed {self.preset.training.seed}"

    def _count(self, update: Update) -> None:
        config, progress = self.preset.training, self.progress
        progress.update += 1
        progress.sequences += config.batch_size
        if update.skipped:
            progress.skipped += 1
            progress.not_finite += 1
            if progress.not_finite > config.skips:
                raise NotFinite(
                    f"{self._where}: {update.skipped} is not finite (loss {update.loss:g}), for {progress.not_finite} "
                    f"updates in a row; {REMEDY}"
                )
            return
        progress.not_finite = 0
        if not update.asked:
            return
        progress.recent_losses = [*progress.recent_losses[1 - RECENT :], update.loss]
        progress.recent_errors = [*progress.recent_errors[1 - RECENT :], update.errors]
        if self._lesson_is_over():
            progress.stage += 1
            progress.recent_losses, progress.recent_errors = [], []

    def _lesson_is_over(self) -> bool:
        losses, stages = self.progress.recent_losses, self.preset.curriculum[self.progress.stage :]
        return bool(stages) and len(losses) == RECENT and sum(losses) / RECENT < stages[0].until

    def _validate(self) -> None:
        config, progress = self.preset.training, self.progress
        greatest = self.preset.task.greatest
        unroll = self.processes.whole(self.unroll)
        measured = measure(self.model, greatest, config.validation_sequences, VALIDATION_SEED, unroll=unroll)
        progress.validation_errors = measured.excess
        at_target = progress.validation_errors <= config.target_errors
        progress.validations_at_target = progress.validations_at_target + 1 if at_target else 0
        if at_target and progress.converged_after is None:
            progress.converged_after = progress.sequences

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor that resuming needs: weights, optimiser state, random generators."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for name, state in self.updates.optimizer_state().items():
            tensors |= {f"optimizer.{name}.{key}": value for key, value in state.items()}
        tensors["generator.data"] = self.generator.get_state()
        tensors["generator.torch"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["generator.cuda"] = torch.cuda.get_rng_state(self.device)
        return tensors

    def restore(self, tensors: dict[str, Tensor], progress: dict[str, Any]) -> None:
        """Go on from saved `tensors()` and `progress`."""
        self.progress = Progress(**progress)
        weights = {name.removeprefix("model."): tensors[name] for name in tensors if name.startswith("model.")}
        self.model.load_state_dict(weights)
        state: dict[str, dict[str, Tensor]] = {}
        for name in tensors:
            if name.startswith("optimizer."):
                weight, _, key = name.removeprefix("optimizer.").rpartition(".")
                state.setdefault(weight, {})[key] = tensors[name]
        self.updates.restore(state)
        self.generator.set_state(tensors["generator.data"])
        torch.set_rng_state(tensors["generator.torch"])
        if self.device.type == "cuda" and "generator.cuda" in tensors:  # a run may go on on another device
            torch.cuda.set_rng_state(tensors["generator.cuda"], self.device)


def _require_asked(task: Task, sequences: int) -> None:
    """Raise ConfigError if this many sequences, drawn one by one, all ask for nothing."""
    generator = torch.Generator().manual_seed(VALIDATION_SEED)
    if not any(task.sample(generator, 1).mask.any() for _ in range(sequences)):
        raise nothing_asked(task, sequences)
