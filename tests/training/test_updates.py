"""Updates of users' own tasks, by the kernels and by torch."""

import copy

import pytest
import torch
from torch.nn.functional import cross_entropy

from kernels.torch_unroll import TorchUnroll
from kernels.unroll import FusedUnroll
from models.registry import build
from tests.kernels.test_update import Bits, Digits
from training.distributed import ALONE
from training.optimizers import OptimizerConfig
from training.tasks import Episode
from training.updates import KernelUpdates, TorchUpdates

STEPS, ROWS, OUTPUTS = 5, 3, 6


class OwnLoss(Bits):
    def loss(self, outputs, episode):
        return 2 * super().loss(outputs, episode)


class OwnErrors(Bits):
    def errors(self, outputs, episode):
        return 10 * super().errors(outputs, episode)


class Numbers(Bits):
    """Answers given as the number of an output: another shape and type of targets than the outputs'."""

    def loss(self, outputs, episode):
        return cross_entropy(outputs[episode.mask], episode.targets[episode.mask])

    def errors(self, outputs, episode):
        return (outputs.argmax(2) != episode.targets).sum(0)


class FirstTwo(Digits):
    def digits(self, values):
        return values.reshape(*values.shape[:-1], self.groups, self.classes)[..., :2].argmax(-1)


TASKS = [Bits, OwnLoss, OwnErrors, Digits, FirstTwo]


def targets(layout):
    """Return random targets whose axes follow each other in memory in this order."""
    sizes = [(STEPS, ROWS, OUTPUTS)[axis] for axis in layout]
    return torch.randint(0, 2, sizes).float().permute([layout.index(axis) for axis in range(3)])


def updated_both_ways(task, episode):
    """Return the figures of two updates by the kernels and by torch."""
    controller = {"kind": "lstm", "hidden_size": 4}
    model = build("rnn", {"input_size": 2, "output_size": OUTPUTS, "controller": controller})
    same = copy.deepcopy(model)
    config = OptimizerConfig(epsilon=1e-3)
    ways = KernelUpdates(FusedUnroll(model), config), TorchUpdates(same, TorchUnroll(same), config, ALONE)
    part = ALONE.part(episode)
    return [[updates.update(task, part, 0.1)[:3] for _ in range(2)] for updates in ways]


def assert_alike(ways):
    for ours, theirs in zip(*ways, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)


def task_of(kind):
    return kind(1, OUTPUTS) if issubclass(kind, Digits) else kind(OUTPUTS)


@pytest.mark.parametrize("layout", [(0, 1, 2), (1, 0, 2), (2, 0, 1)])
@pytest.mark.parametrize("kind", TASKS)
def test_own_task_is_trained_as_by_torch_whatever_the_layout(kind, layout):
    mask = torch.tensor([[0, 1, 1, 0, 1]]).T.expand(STEPS, ROWS).float()
    task, episode = task_of(kind), Episode(torch.randn(STEPS, ROWS, 2), targets(layout), mask)
    assert_alike(updated_both_ways(task, episode))


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float64])
@pytest.mark.parametrize("kind", TASKS)
def test_mask_and_targets_of_any_type_are_taken(kind, dtype):
    task, mask = task_of(kind), torch.ones(STEPS, ROWS).to(dtype)
    answers = targets((0, 1, 2)).to(torch.float64 if dtype == torch.float64 else torch.float32)
    episode = Episode(torch.randn(STEPS, ROWS, 2), answers, mask)
    assert_alike(updated_both_ways(task, episode))


def test_targets_of_an_own_loss_have_any_shape():
    mask = torch.ones(STEPS, ROWS).bool()
    episode = Episode(torch.randn(STEPS, ROWS, 2), torch.randint(0, OUTPUTS, (STEPS, ROWS)), mask)
    assert_alike(updated_both_ways(Numbers(OUTPUTS), episode))
