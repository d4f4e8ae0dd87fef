"""One model trained by several processes at once, started by torchrun, each on its own rows of every batch.

    the batch, drawn alike by all    | rows 0 1 2 | rows 3 4 5 | rows 6 7 |
                                           |            |           |
    each process: unroll, loss,            v            v           v        loss * asked here / asked in all
    gradients, of its own rows         process 0    process 1   process 2
                                           |            |           |
    DistributedDataParallel                '----- mean gradient ----'        * processes: that of the whole batch
                                           |            |           |
    the same step of the same weights      v            v           v

A run by several processes is therefore the run by one with the same batch, up to the rounding of sums in another order.
The figures that a run decides by (losses, errors, requests to stop) are summed over all, so that all decide alike.
Process 0 leads: it alone shows progress, records and saves.
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
"""How long a process waits for the others, one of which may be saving; after that the run ends."""

VARIABLES = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""The variables that torchrun sets for every process, beside WORLD_SIZE, the number of processes."""


class BatchPart(NamedTuple):
    """One process's rows of a batch."""

    episode: Episode
    sequences: float
    """The rows' share of the batch's sequences."""
    asked: float
    """The rows' share of the elements asked for, 0 if there are none: the weight of their mean loss in the batch's."""


class Learner(nn.Module):
    """The unroll of a model as a module of its own, for DistributedDataParallel.

    Its parameters are the model's. It has no buffers, which would be broadcast although no update changes them. It
    returns outputs only, because a gradient is expected for every tensor that it returns.
    """

    def __init__(self, model: MemoryModel[Any], unroll: Unroll) -> None:
        super().__init__()
        self.weights, self.unroll = nn.ParameterList(model.parameters()), unroll

    def forward(self, inputs: Tensor, lengths: Tensor | None) -> Tensor:
        """Return the outputs of sequences from the model's initial state: [T, B, input_size] -> [T, B, output_size]."""
        outputs, _ = self.unroll(inputs, lengths=lengths)
        return outputs


class Processes(ABC):
    """The processes that train one model, from the view of one of them.

    rank: the number of this one, from 0; size: the number of processes; device: where this one computes.
    All methods but `part` return the same in every process.
    """

    def __init__(self, rank: int, size: int, device: str) -> None:
        self.rank, self.size, self.device = rank, size, device

    @property
    def leads(self) -> bool:
        return self.rank == 0

    @abstractmethod
    def part(self, batch: Episode) -> BatchPart:
        """Return this process's part of a batch that all processes have drawn."""

    @abstractmethod
    def learner(self, model: MemoryModel[Any], unroll: Unroll) -> nn.Module:
        """Return a Learner whose gradients of weights are the means over all processes."""

    @abstractmethod
    def whole(self, unroll: Unroll) -> "Unroll | WholeUnroll":
        """Return an unroll without gradients, which computes batches that all processes have, a part in each."""

    @abstractmethod
    def sum(self, *values: float) -> list[float]:
        """Return the sums of values over all processes."""

    @abstractmethod
    def own_noise(self, seed: int, update: int) -> None:
        """Seed this process's random numbers of an update, such as dropout, apart from those of the others."""

    def any(self, flag: bool) -> bool:
        """Return whether a flag is true in any process."""
        return self.sum(flag)[0] > 0

    def meet(self) -> None:
        """Wait until every process has come this far."""
        self.sum(0)


class Alone(Processes):
    """The only process of a run."""

    def __init__(self, device: str = "cpu") -> None:
        super().__init__(0, 1, device)

    def part(self, batch: Episode) -> BatchPart:
        return BatchPart(batch, 1.0, float(batch.mask.any()))

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
    """One of several processes, whose group exists: tensors on GPUs are sent by NCCL, all others by Gloo."""

    def part(self, batch: Episode) -> BatchPart:
        sequences = batch.mask.shape[1]
        rows = self.rows(sequences)
        own = batch.rows(rows)
        asked = float(own.mask.sum() / batch.mask.sum()) if batch.mask.any() else 0.0
        return BatchPart(own, (rows.stop - rows.start) / sequences, asked)

    def rows(self, sequences: int) -> slice:
        """Return this process's range of the rows: as many as every other process has, or one more or less."""
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
        if not self.leads:  # only this generator is saved; the others need none to be resumed
            torch.manual_seed((seed * 1_000_003 + update) * self.size + self.rank)


class WholeUnroll:
    """`unroll` of batches that all processes have: each unrolls its own rows, and all get all outputs."""

    def __init__(self, processes: Together, unroll: Unroll) -> None:
        self.processes, self.unroll = processes, unroll

    def __call__(self, inputs: Tensor, state: Any, lengths: Tensor | None = None) -> tuple[Tensor, None]:
        """Return the outputs before their activation, [T, B, output_size], and None, for no process has all states.

        inputs: [T, B, input_size]; state: of all rows before the first step; lengths: [B], as in `unroll`.
        """
        rows = self.processes.rows(inputs.shape[1])
        outputs = inputs.new_zeros(*inputs.shape[:2], self.unroll.model.output_size)
        if rows.start < rows.stop:
            own_state = unflatten({name: leaf[rows] for name, leaf in flatten(state).items()}, state)
            own_lengths = None if lengths is None else lengths[rows]
            outputs[:, rows], _ = self.unroll(inputs[:, rows], own_state, own_lengths)
        distributed.all_reduce(outputs)  # a sum, in which one process alone adds a row that is not zero
        return outputs, None


def process_count() -> int:
    """Return the number of processes that torchrun has started; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def launcher() -> str:
    """Return the words before a command that start it as this process was started; none without torchrun."""
    if process_count() == 1:
        return ""
    machines, here = os.environ.get("GROUP_WORLD_SIZE", "1"), os.environ.get("LOCAL_WORLD_SIZE", process_count())
    several = "" if machines == "1" else f"--nnodes {machines} "
    return f"torchrun {several}--nproc-per-node {here} --no-python "


def join(device: str) -> Processes:
    """Join the processes that torchrun started beside this one; return Alone if there are none.

    The group of processes is made once and lives as long as the process. device: cpu, or cuda for a GPU each.
    Raises ValueError if variables of torchrun are missing, or there is no GPU for this process.
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
        importlib.import_module(
            "torch.distributed.nn.functional"
        )  # otherwise the default arguments of a later import hold the group
        distributed.init_process_group("gloo" if device == "cpu" else "cpu:gloo,cuda:nccl", timeout=TIMEOUT)
        atexit.register(_leave)
    return Together(distributed.get_rank(), distributed.get_world_size(), device)


def _leave() -> None:
    """End the group of processes; its threads are joined if nothing refers to it any more.

    A thread that frees a tensor after the end of the interpreter ends the process by SIGABRT.
    """
    gc.collect()  # an unused DistributedDataParallel that refers to itself
    distributed.destroy_process_group()


def _own_gpu(local_rank: int) -> str:
    """Select the GPU of this process for torch and return it. Raises ValueError if there is none."""
    gpus = torch.cuda.device_count()
    if local_rank >= gpus:
        raise ValueError(
            f"process {local_rank} of this machine has no GPU: torch sees {gpus} here; give torchrun "
            f"--nproc-per-node {gpus}, or train with --device cpu"
        )
    torch.cuda.set_device(local_rank)
    return f"cuda:{local_rank}"
