"""The public implementations of `benchmarks.peers`, each trained on the copy task as its authors' script trains it.

Theirs is the task without a start flag, one step shorter than ours:

    time     0 1 2 3 4 5 6
    bits     a b c . . . .      8 channels
    end      . . . # . . .      one channel
    target           a b c      T = 2 length + 1

None of their code is here: if a script comes with the network, its own functions are run.
"""

import ast
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Adam, RMSprop

from benchmarks.peers import DNC_READ_HEADS, OUTPUT_SIZE, Peer, import_beside, mthrok_dnc, pypi_dnc, pytorch_ntm
from benchmarks.training.twins import mthrok_dnc_twin, pytorch_ntm_twin
from models.contract import MemoryModel
from training.tasks import Copy

Train: TypeAlias = Callable[[Sequence[int], int], list[float]]
"""(lengths, batch) -> losses: make an update of `batch` sequences for each length, and return their losses."""


@dataclass(frozen=True)
class Script:
    """A public implementation with its training. twin: returns our model with its present weights."""

    peer: Peer
    train: Train
    twin: Callable[[], MemoryModel[Any]] | None = None


def load_scripts(directory: Path) -> tuple[list[Script], list[str]]:
    """Return the implementations below the directory, and the names of missing ones."""
    scripts: list[Script] = []
    missing = []
    for name, load in SCRIPTS.items():
        try:
            scripts += load(directory / name)
        except FileNotFoundError:
            missing.append(name)
    return scripts, missing


def functions(path: Path, *names: str) -> list[Any]:
    """Return functions of a script without running the rest of it, which needs more packages.

    Raises ValueError if one is missing.
    """
    script = ast.parse(path.read_text(), str(path))
    kept = {node.name: node for node in script.body if isinstance(node, ast.FunctionDef) and node.name in names}
    if len(kept) < len(names):
        raise ValueError(f"{path}: expected the functions {', '.join(names)}, found {', '.join(kept) or 'none'}")
    scope: dict[str, Any] = {"np": np, "random": random, "torch": torch}
    exec(compile(ast.Module([*kept.values()], []), str(path), "exec"), scope)  # noqa: S102
    return [scope[name] for name in names]


def seed_all(seed: int) -> None:
    """Seed every generator that the scripts draw from."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def copy_episode(length: int, batch: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return inputs [T, B, 9], targets [T, B, 8] and mask [T, B]."""
    episode = Copy(OUTPUT_SIZE, (length, length)).sample(torch.default_generator, batch)
    bits, _, end = torch.split(episode.inputs[1:], [OUTPUT_SIZE, 1, 1], 2)
    return torch.cat([bits, end], 2), episode.targets[1:], episode.mask[1:]


# pytorch-ntm


def pytorch_ntm_scripts(directory: Path) -> Iterator[Script]:
    """Yield the NTM with its own data, update and settings of RMSProp.

    The update counts wrong bits and clips each entry of the gradients.
    """
    peer = pytorch_ntm(import_beside("pytorch-ntm", directory / "ntm", "aio"))
    (sample,) = functions(directory / "tasks" / "copytask.py", "dataloader")
    train_batch, _ = functions(directory / "train.py", "train_batch", "clip_grads")
    criterion, optimizer = nn.BCELoss(), RMSprop(peer.parameters(), lr=1e-4, alpha=0.95, momentum=0.9)

    def train(lengths: Sequence[int], batch: int) -> list[float]:
        losses = []
        for length in lengths:
            [(_, inputs, targets)] = sample(1, batch, OUTPUT_SIZE, length, length)
            loss, _ = train_batch(peer.network, criterion, optimizer, inputs, targets)
            losses.append(loss)
        return losses

    yield Script(peer, train, partial(pytorch_ntm_twin, peer))


# mthrok's DNC


def mthrok_dnc_scripts(directory: Path) -> Iterator[Script]:
    """Yield the DNCs with their own loop, loss and settings of RMSProp, which clip nothing.

    Their own data are those of repeat copy; here they get our copy task.
    """
    source = import_beside("dnc-mthrok", directory / "dnc", "dnc")
    task = import_beside("dnc-mthrok", directory / "dnc", "repeat_copy")
    (loop,) = functions(directory / "train.py", "_run_train_loop")
    for read_heads in DNC_READ_HEADS:
        peer = mthrok_dnc(source, read_heads)
        optimizer = RMSprop(peer.parameters(), lr=1e-4, eps=1e-10)
        train = partial(mthrok_updates, loop, peer.network, optimizer, task.masked_sigmoid_cross_entropy)
        yield Script(peer, train, partial(mthrok_dnc_twin, peer))


def mthrok_updates(
    loop: Callable[..., None],
    network: nn.Module,
    optimizer: RMSprop,
    cross_entropy: Callable[[Tensor, Tensor, Tensor], Tensor],
    lengths: Sequence[int],
    batch: int,
) -> list[float]:
    """Run the loop; a `Train` once all arguments but the last two are bound."""
    dataset = MthrokDataset(cross_entropy, lengths, batch)
    never = len(lengths) + 1
    loop(network, dataset, optimizer, len(lengths), never, None, None, None)
    return [loss.item() for loss in dataset.losses]


class MthrokDataset:
    """The copy task with the interface of the loop's data."""

    def __init__(
        self, cross_entropy: Callable[[Tensor, Tensor, Tensor], Tensor], lengths: Sequence[int], batch: int
    ) -> None:
        self._cross_entropy = cross_entropy
        self._episodes = (MthrokEpisode(*copy_episode(length, batch)) for length in lengths)
        self.losses: list[Tensor] = []

    def __call__(self, device: None) -> "MthrokEpisode":
        del device
        return next(self._episodes)

    def cost(self, logits: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
        loss = self._cross_entropy(logits, targets, mask)
        self.losses.append(loss.detach())
        return loss


@dataclass(frozen=True)
class MthrokEpisode:
    observations: Tensor
    target: Tensor
    mask: Tensor


# dnc 1.1.0


def pypi_dnc_scripts(directory: Path) -> Iterator[Script]:
    """Yield the DNCs with the update and the settings of Adam of their repository's copy task.

    The package comes without the script. The loss is on all steps. There is no twin: without the read feedback, none of
    our models equals it.
    """
    source = import_beside("dnc-1.1.0", directory / "dnc", "dnc")
    for read_heads in DNC_READ_HEADS:
        peer = pypi_dnc(source, read_heads)
        optimizer = Adam(peer.parameters(), lr=1e-4, betas=(0.9, 0.98), eps=1e-9)
        yield Script(peer, partial(pypi_updates, peer, optimizer))


def pypi_updates(peer: Peer, optimizer: Adam, lengths: Sequence[int], batch: int) -> list[float]:
    """Train; a `Train` once all arguments but the last two are bound."""
    losses = []
    for length in lengths:
        inputs, targets, _ = copy_episode(length, batch)
        losses.append(peer.update(inputs, targets))
        clip_grad_norm_(peer.parameters(), 50)
        optimizer.step()
    return losses


SCRIPTS: dict[str, Callable[[Path], Iterator[Script]]] = {
    "pytorch-ntm": pytorch_ntm_scripts,
    "dnc-mthrok": mthrok_dnc_scripts,
    "dnc-1.1.0": pypi_dnc_scripts,
}
"""Implementations, by the names of their directories."""
