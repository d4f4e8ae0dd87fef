"""One model trained by several processes at once, started by torchrun, each on its own rows of every batch.

    the batch, drawn alike by all    | rows 0 1 2 | rows 3 4 5 | rows 6 7 |
                                           |            |           |
    each process: unroll, loss,            v            v           v        loss * asked here / asked in all
    gradients, of its own rows         process 0    process 1   process 2
                                           |            |           |
    DistributedDataParallel                '----- mean gradient ----'        * processes: that of the whole batch
                                           |            |           |
    the same step of the same weights      v            v           v

So a run by several is the run by one with the same batch, up to the rounding of sums that are added in another order.
What a run goes by, losses and errors and a wish to stop, is summed over all, so that all decide alike. Process 0 leads:
it alone shows, records and saves.
"""

import atexit
import gc
import importlib
import os
from abc import ABC, abstractmethod
from datetime import timedelta
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from kernels.unroll import Unroll
from models.contract import MemoryModel
from models.state import flatten, unflatten
from training.tasks import Episode

TIMEOUT = timedelta(minutes=10)
"""How long a process waits for the others, of which one may be saving; then it gives up, and the run ends."""

VARIABLES = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun tells every process of the others, beside WORLD_SIZE, their number."""


class Part(NamedTuple):
    """The rows of a batch that are for one process."""

    episode: Episode
    sequences: float
    """Their share of the sequences of the batch."""
    asked: float
    """Their share of the elements asked for, 0 where there are none: what their mean loss counts for in the batch's."""


class Learner(nn.Module):
    """The unroll of a model as a module of its own, as DistributedDataParallel takes one.

    Its parameters are the model's; of buffers, which no update changes, it has none to be sent around. It returns
    outputs only: a gradient is expected of all that it returns.
    """

    def __init__(self, model: MemoryModel[Any], unroll: Unroll) -> None:
        super().__init__()
        self.weights, self.unroll = nn.ParameterList(model.parameters()), unroll

    def forward(self, inputs: Tensor, lengths: Tensor | None) -> Tensor:
        """Return the outputs of sequences from the model's initial state: [T, B, input_size] -> [T, B, output_size]."""
        outputs, _ = self.unroll(inputs, lengths=lengths)
        return outputs


class Processes(ABC):
    """The processes that train one model, as one of them sees them.

    rank: the number of this one, from 0; size: how many there are; device: where this one computes.
    What a method returns is the same in all of them, but for the part of a batch.
    """

    def __init__(self, rank: int, size: int, device: str) -> None:
        self.rank, self.size, self.device = rank, size, device

    @property
    def leads(self) -> bool:
        return self.rank == 0

    @abstractmethod
    def part(self, batch: Episode) -> Part:
        """Return this process's part of a batch that all have drawn."""

    @abstractmethod
    def learner(self, model: MemoryModel[Any], unroll: Unroll) -> nn.Module:
        """Return a Learner through which the gradients of weights are the means over all processes."""

    @abstractmethod
    def whole(self, unroll: Unroll) -> "Unroll | WholeUnroll":
        """Return an unroll without gradients, of batches that all processes have, of which each computes its part."""

    @abstractmethod
    def sum(self, *values: float) -> list[float]:
        """Return the sums of values over all processes."""

    @abstractmethod
    def own_noise(self, seed: int, update: int) -> None:
        """Let what this process draws in an update, dropout, differ from what the others draw."""

    def any(self, flag: bool) -> bool:
        """Return whether a flag is up in any process."""
        return self.sum(flag)[0] > 0

    def meet(self) -> None:
        """Return when every process has come this far."""
        self.sum(0)


class Alone(Processes):
    """One process that trains by itself."""

    def __init__(self, device: str = "cpu") -> None:
        super().__init__(0, 1, device)

    def part(self, batch: Episode) -> Part:
        return Part(batch, 1.0, float(batch.mask.any()))

    def learner(self, model: MemoryModel[Any], unroll: Unroll) -> nn.Module:
        return Learner(model, unroll)

    def whole(self, unroll: Unroll) -> Unroll:
        return unroll

    def sum(self, *values: float) -> list[float]:
        return list(values)

    def own_noise(self, seed: int, update: int) -> None:
        pass


ALONE = Alone()


class Together(Processes):
    """One of several processes, whose group is there: what is on GPUs goes by NCCL, all else by Gloo."""

    def part(self, batch: Episode) -> Part:
        sequences = batch.mask.shape[1]
        rows = self.rows(sequences)
        own = batch.rows(rows)
        asked = float(own.mask.sum() / batch.mask.sum()) if batch.mask.any() else 0.0
        return Part(own, (rows.stop - rows.start) / sequences, asked)

    def rows(self, sequences: int) -> slice:
        """Return which of so many rows are for this process: as many as for the others, or one more or less."""
        return slice(sequences * self.rank // self.size, sequences * (self.rank + 1) // self.size)

    def learner(self, model: MemoryModel[Any], unroll: Unroll) -> nn.Module:
        return DistributedDataParallel(Learner(model, unroll))

    def whole(self, unroll: Unroll) -> "WholeUnroll":
        return WholeUnroll(self, unroll)

    def sum(self, *values: float) -> list[float]:
        sums = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(sums)
        return sums.tolist()

    def own_noise(self, seed: int, update: int) -> None:
        if not self.leads:  # whose generator is the one that is saved; the others need none to go on as they were
            torch.manual_seed((seed * 1_000_003 + update) * self.size + self.rank)


class WholeUnroll:
    """`unroll` of batches that all processes have: each steps its own rows, and all get the outputs of all."""

    def __init__(self, processes: Together, unroll: Unroll) -> None:
        self.processes, self.unroll = processes, unroll

    def __call__(self, inputs: Tensor, state: Any, lengths: Tensor | None = None) -> tuple[Tensor, None]:
        """Return the outputs before their activation, [T, B, output_size], and None: no process has all states.

        inputs: [T, B, input_size]; state: before the first step, of all rows; lengths: [B], as of the unroll.
        """
        rows = self.processes.rows(inputs.shape[1])
        outputs = inputs.new_zeros(*inputs.shape[:2], self.unroll.model.output_size)
        if rows.start < rows.stop:
            own_state = unflatten({name: leaf[rows] for name, leaf in flatten(state).items()}, state)
            own_lengths = None if lengths is None else lengths[rows]
            outputs[:, rows], _ = self.unroll(inputs[:, rows], own_state, own_lengths)
        distributed.all_reduce(outputs)  # a sum to which every row has one that is not zero
        return outputs, None


def process_count() -> int:
    """Return how many processes torchrun has started, with this one; 1 where it was not used."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def launcher() -> str:
    """Return what stands before a command to start it as this process was started; nothing where it was by itself."""
    if process_count() == 1:
        return ""
    machines, here = os.environ.get("GROUP_WORLD_SIZE", "1"), os.environ.get("LOCAL_WORLD_SIZE", process_count())
    several = "" if machines == "1" else f"--nnodes {machines} "
    return f"torchrun {several}--nproc-per-node {here} --no-python "


def join(device: str) -> Processes:
    """Join the processes that torchrun started beside this one, or be Alone where there are none.

    The group of processes is made once and stays until the end of the process. device: cpu, or cuda for a GPU each.
    Raises ValueError where the environment does not tell how to join, or there is no GPU for this process.
    """
    if process_count() == 1:
        return Alone(device)
    missing = [name for name in VARIABLES if name not in os.environ]
    if missing:
        raise ValueError(
            f"WORLD_SIZE is {process_count()}, but {', '.join(missing)} is not set: start several processes with "
            "torchrun, or unset WORLD_SIZE"
        )
    if device == "cuda":
        device = _own_gpu(int(os.environ["LOCAL_RANK"]))
    if not distributed.is_initialized():
        importlib.import_module("torch.distributed.nn.functional")  # else later, its default arguments hold the group
        distributed.init_process_group("gloo" if device == "cpu" else "cpu:gloo,cuda:nccl", timeout=TIMEOUT)
        atexit.register(_leave)
    return Together(distributed.get_rank(), distributed.get_world_size(), device)


def _leave() -> None:
    """End the group of processes, whose threads are joined where nothing holds it any more.

    A thread that lets go of a tensor after the interpreter's end ends the process by SIGABRT.
    """
    gc.collect()  # a DistributedDataParallel that is not used any more, but refers to itself
    distributed.destroy_process_group()


def _own_gpu(local_rank: int) -> str:
    """Return the GPU of this process, made the one that torch takes. Raises ValueError where there is none for it."""
    gpus = torch.cuda.device_count()
    if local_rank >= gpus:
        raise ValueError(
            f"process {local_rank} of this machine has no GPU: torch sees {gpus} here; give torchrun "
            f"--nproc-per-node {gpus}, or train with --device cpu"
        )
    torch.cuda.set_device(local_rank)
    return f"cuda:{local_rank}"
