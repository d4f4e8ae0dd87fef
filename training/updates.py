"""Updates of a model's weights by batches of a task: by torch, or whole by the kernels."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kernels.layout import OPTIMIZERS
from kernels.layout import Optimizer as Rule
from kernels.unroll import FusedUnroll, Unroll
from kernels.update import Batch, FusedUpdate
from models.contract import MemoryModel
from training.distributed import BatchPart, Processes
from training.optimizers import OptimizerConfig, build_optimizer, finish_gradients
from training.tasks import AnswerTask, BitTask, Task


class Update(NamedTuple):
    """The figures of one update."""

    loss: float
    """Mean cross-entropy in nats per element asked for; 0 if there were none."""
    errors: float
    """Errors per sequence of the batch, in the task's unit."""
    gradient_norm: float
    """The norm before clipping."""
    rate: float
    """The learning rate."""
    skipped: str | None
    """The tensor that was not finite, if the weights were left unchanged."""
    asked: bool = True
    """Whether the batch asked for anything."""


class Updates(ABC):
    """The weights of a model and its optimiser, which change together."""

    def __init__(self, model: MemoryModel[Any]) -> None:
        self._model = model

    @property
    def model(self) -> MemoryModel[Any]:
        """The model with its present weights; after another update it must be asked for again."""
        self.publish()
        return self._model

    @abstractmethod
    def publish(self) -> None:
        """Write the present weights to the model."""

    @abstractmethod
    def update(self, task: Task, part: BatchPart, rate: float) -> Update:
        """Change the weights by the gradient of a batch, unless its loss or its gradient is not finite."""

    @abstractmethod
    def optimizer_state(self) -> dict[str, dict[str, Tensor]]:
        """Return what the optimiser keeps, by the name of the weight and its own; nothing before the first update."""

    @abstractmethod
    def restore(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Go on from a saved `optimizer_state()`."""

    @abstractmethod
    def gradients(self) -> dict[str, Tensor]:
        """Return the gradients of the last update by the names of the weights."""

    @abstractmethod
    def end(self) -> None:
        """Publish the weights, and let go of the group of processes, if any: it must end before the interpreter."""

    def not_finite(self, outputs: Tensor, loss: float) -> str:
        """Return the name of the first tensor that is not finite, in the order in which they are computed."""
        tensors = {**dict(self.model.named_parameters()), "outputs": outputs, "loss": torch.tensor(loss)}
        tensors |= {f"the gradient of {name}": gradient for name, gradient in self.gradients().items()}
        return next((name for name, tensor in tensors.items() if not tensor.isfinite().all()), "the gradient's norm")


def updates_of(
    model: MemoryModel[Any], unroll: Unroll, config: OptimizerConfig, processes: Processes
) -> "TorchUpdates | KernelUpdates":
    """Return the updates of a model: by the kernels if they unroll it and one process trains it."""
    if isinstance(unroll, FusedUnroll) and processes.size == 1:
        return KernelUpdates(FusedUnroll(model), config)  # an unroll of its own: validations pack weights into theirs
    return TorchUpdates(model, unroll, config, processes)


class TorchUpdates(Updates):
    """Gradients by autograd and an optimiser of torch, alone or together with other processes."""

    def __init__(self, model: MemoryModel[Any], unroll: Unroll, config: OptimizerConfig, processes: Processes) -> None:
        super().__init__(model)
        self.optimizer = build_optimizer(config, model)
        self._unroll, self._config, self._processes = unroll, config, processes
        self._device = next(model.parameters()).device
        self._learner: nn.Module | None = None

    def update(self, task: Task, part: BatchPart, rate: float) -> Update:
        episode = part.episode.to(self._device)
        self._learner = self._learner or self._processes.learner(self._model, self._unroll)
        self.optimizer.zero_grad()
        outputs: Tensor = self._learner(episode.inputs, episode.lengths)
        own_loss = task.loss(outputs, episode) if part.asked else 0 * outputs.sum()
        (own_loss * (part.asked * self._processes.size)).backward()  # type: ignore[no-untyped-call]
        own_errors = task.errors(outputs, episode).float().mean()
        loss, errors, asked = self._processes.sum(
            own_loss.item() * part.asked, own_errors.item() * part.sequences, part.asked
        )
        norm = finish_gradients(self._config, self._model).item()
        skipped = None
        if math.isfinite(norm) and math.isfinite(loss):
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
        else:
            skipped = self.not_finite(outputs, loss)
        return Update(loss, errors, norm, rate, skipped, asked > 0)

    def optimizer_state(self) -> dict[str, dict[str, Tensor]]:
        names = [name for name, _ in self._model.named_parameters()]
        return {names[index]: dict(state) for index, state in self.optimizer.state_dict()["state"].items()}

    def restore(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        saved = self.optimizer.state_dict()
        names = enumerate(name for name, _ in self._model.named_parameters())
        saved["state"] = {index: dict(state[name]) for index, name in names if name in state}
        self.optimizer.load_state_dict(saved)

    def gradients(self) -> dict[str, Tensor]:
        return {name: weight.grad for name, weight in self._model.named_parameters() if weight.grad is not None}

    def publish(self) -> None:
        """Nothing is to do: the optimiser changes the weights in the model."""

    def end(self) -> None:
        self._learner = None


TORCH_NAMES = {"adam": {"mean": "exp_avg", "square": "exp_avg_sq"}}
"""torch's names of the arrays that an optimiser keeps, if they are not those of the kernels."""


class KernelUpdates(Updates):
    """Whole updates by the kernels, in one process on a CPU; the loss by torch if the task has one of its own."""

    def __init__(self, unroll: FusedUnroll, config: OptimizerConfig) -> None:
        super().__init__(unroll.model)
        self._kind = config.kind
        self.fused = FusedUpdate(unroll, rule_of(config))

    def update(self, task: Task, part: BatchPart, rate: float) -> Update:
        episode = part.episode.to(torch.device("cpu"))

        def loss(outputs: Tensor) -> Tensor:
            return task.loss(outputs, episode) if part.asked else 0 * outputs.sum()

        answer = answer_of(task, self._model)
        outcome = self.fused.update(Batch(*episode), answer, loss, rate)
        if answer is not None and has_plain_errors(task):
            errors = outcome.errors / outcome.outputs.shape[1]
        else:
            errors = task.errors(outcome.outputs, episode).float().mean().item()
        skipped = None
        if not math.isfinite(outcome.norm) or not math.isfinite(outcome.loss):
            skipped = self.not_finite(outcome.outputs, outcome.loss)
        return Update(outcome.loss, errors, outcome.norm, rate, skipped, part.asked > 0)

    def optimizer_state(self) -> dict[str, dict[str, Tensor]]:
        step = self.fused.optimizer.step
        if step == 0:
            return {}
        names = TORCH_NAMES.get(self._kind, {})
        kept = self.fused.kept().items()
        state = {
            weight: {names.get(name, name): torch.from_numpy(array) for name, array in arrays.items()}
            for weight, arrays in kept
        }
        if self._kind == "adam":
            for arrays in state.values():
                arrays["step"] = torch.tensor(float(step))
        return state

    def restore(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        if not state:
            return
        names = TORCH_NAMES.get(self._kind, {})
        steps = [int(arrays["step"].item()) for arrays in state.values() if "step" in arrays]
        self.fused.optimizer.step = max(steps, default=1)  # RMSProp does not count them
        kept = self.fused.kept()  # torch keeps nothing of a weight that was always frozen
        for weight, arrays in state.items():
            kept[weight] = {name: arrays[names.get(name, name)].numpy() for name in kept[weight]}
        self.fused.restore(kept)

    def gradients(self) -> dict[str, Tensor]:
        return {name: torch.from_numpy(gradient) for name, gradient in self.fused.gradients().items()}

    def publish(self) -> None:
        self.fused.publish()

    def end(self) -> None:
        self.publish()


def rule_of(config: OptimizerConfig) -> Rule:
    """Return the rule of an optimiser as the kernels read it."""
    rule = Rule(kind=OPTIMIZERS.index(config.kind), epsilon=config.own_epsilon, momentum=config.momentum)
    rule.decay, rule.square_decay = config.betas if config.kind == "adam" else (config.decay, config.decay)
    for name in ("l1", "l2", "clip_value", "clip_norm"):
        setattr(rule, name, getattr(config, name))
    return rule


def answer_of(task: Task, model: MemoryModel[Any]) -> str | None:
    """Return the kind of a task's answers if the kernels compute its loss; None if the task has one of its own."""
    if isinstance(task, BitTask) and has(task, BitTask.loss) and task.output_size == model.output_size:
        return "bits"
    answers = AnswerTask.loss, AnswerTask._by_group
    if isinstance(task, AnswerTask) and has(task, *answers) and task.groups == model.output_groups:
        return "classes"
    return None


def has_plain_errors(task: Task) -> bool:
    """Return whether a task counts wrong bits or answers as the kernels do."""
    answers = AnswerTask.errors, AnswerTask.digits, AnswerTask._by_group
    return has(task, BitTask.errors) or has(task, *answers)


def has(task: Task, *methods: Callable[..., Any]) -> bool:
    """Return whether a task has these methods as they are, not its own in their place."""
    return all(getattr(type(task), method.__name__) is method for method in methods)
