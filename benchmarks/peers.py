"""Public implementations of the NTM and the DNC, each as one update of the copy task, to be timed beside ours.

None of their code is here. It is imported from a directory in which the user has installed it by `RECIPE`:

    DIR/pytorch-ntm   loudinthecloud/pytorch-ntm: NTM, memory 128 x 20, one head each, LSTM 100 (its own copy task)
    DIR/dnc-mthrok    mthrok/dnc_pytorch, a port of DeepMind's DNC: memory 32 x 16, LSTM 100, 4 read heads and 1
    DIR/dnc-1.1.0     dnc 1.1.0 (ixaxaar/pytorch-dnc): the same sizes

All take the same episodes, of any length, and the loss is on all steps: 20 vectors of 8 bits are T = 2 * 20 + 2. All
three run on torch 2.13 as published. Threads are the caller's: `torch.set_num_threads(1)`.
"""

import importlib
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn import functional

RECIPE = """\
git clone https://github.com/loudinthecloud/pytorch-ntm {directory}/pytorch-ntm
git -C {directory}/pytorch-ntm checkout 3c64937cb075e737528ff7ecf02b2c1c6d8347a1
git clone https://github.com/mthrok/dnc_pytorch {directory}/dnc-mthrok
git -C {directory}/dnc-mthrok checkout 25e40b9cb19f78076ccf1cf3bce2c19bbcc106bd
pip install --no-deps --target {directory}/dnc-1.1.0 dnc==1.1.0"""

INPUT_SIZE, OUTPUT_SIZE, HIDDEN_SIZE = 9, 8, 100
NTM_MEMORY_SIZE, NTM_WORD_SIZE = 128, 20
DNC_MEMORY_SIZE, DNC_WORD_SIZE, DNC_READ_HEADS = 32, 16, (4, 1)
CLIP = 20  # of the controller's output: the default of both DNCs


def recipe(directory: Path) -> str:
    """Return the commands that put all public implementations below a directory."""
    return RECIPE.format(directory=shlex.quote(str(directory)))


@dataclass(frozen=True)
class Peer:
    """A public implementation of a network, with random weights, and its loss.

    model is "ntm" or "dnc"; loss takes inputs [T, B, 9] and targets [T, B, 8] and gives the binary cross-entropy, in
    nats, averaged over all steps, rows and bits.
    """

    name: str
    model: str
    read_heads: int
    network: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]

    def update(self, inputs: Tensor, targets: Tensor) -> float:
        """Clear the old gradients, compute loss and new gradients, and return the loss.

        An update with an optimiser is this and then the step of an optimiser of `parameters()`.
        """
        self.network.zero_grad()
        loss = self.loss(inputs, targets)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    def parameters(self) -> Iterator[nn.Parameter]:
        return self.network.parameters()


def load_peers(directory: Path) -> list[Peer]:
    """Import the peers from below the directory. Raises FileNotFoundError, with the commands that install them."""
    ntm = import_beside("pytorch-ntm", directory / "pytorch-ntm" / "ntm", "aio")
    port = import_beside("dnc-mthrok", directory / "dnc-mthrok" / "dnc", "dnc")
    package = import_beside("dnc-1.1.0", directory / "dnc-1.1.0" / "dnc", "dnc")
    peers = [pytorch_ntm(ntm)]
    for read_heads in DNC_READ_HEADS:
        peers += [mthrok_dnc(port, read_heads), pypi_dnc(package, read_heads)]
    return peers


def import_beside(name: str, path: Path, module: str) -> ModuleType:
    """Import a module of the package at a path under a name of our own: two of the packages are called `dnc`.

    The package's `__init__` is not run: that of dnc 1.1.0 imports sparse variants, which need an index library.
    """
    if not (path / f"{module}.py").is_file():
        raise FileNotFoundError(f"no {module}.py in {path}; to get it:\n{recipe(path.parents[1])}")
    alias = "peer_" + name.replace("-", "_").replace(".", "_")
    spec = ModuleSpec(alias, None, is_package=True)
    spec.submodule_search_locations = [str(path)]
    sys.modules[alias] = module_from_spec(spec)
    return importlib.import_module(f"{alias}.{module}")


def pytorch_ntm(source: ModuleType) -> Peer:
    """The NTM of pytorch-ntm, with the loss of its copy task.

    Memory and state are attributes of the module, started anew by each episode. The shift is a Python loop over the
    rows of the batch. The first memory and read vector are random constants; only the controller's first state is
    learned.
    """
    network = source.EncapsulatedNTM(INPUT_SIZE, OUTPUT_SIZE, HIDDEN_SIZE, 1, 1, NTM_MEMORY_SIZE, NTM_WORD_SIZE)

    def loss(inputs: Tensor, targets: Tensor) -> Tensor:
        network.init_sequence(inputs.shape[1])
        probabilities = [network(vectors)[0] for vectors in inputs]
        return functional.binary_cross_entropy(torch.stack(probabilities), targets)

    return Peer("pytorch-ntm", "ntm", 1, network, loss)


def mthrok_dnc(source: ModuleType, read_heads: int) -> Peer:
    """The DNC of mthrok/dnc_pytorch, a port of DeepMind's.

    As in DeepMind's, no gradient flows through the last write's part of the usage, a strength is softplus instead of
    the paper's oneplus, and each quantity of the interface has a linear layer of its own.
    """
    network = source.DNC(
        {"memory_size": DNC_MEMORY_SIZE, "word_size": DNC_WORD_SIZE, "num_reads": read_heads, "num_writes": 1},
        {"input_size": INPUT_SIZE + read_heads * DNC_WORD_SIZE, "hidden_size": HIDDEN_SIZE},
        OUTPUT_SIZE,
        CLIP,
    )
    network(torch.zeros(1, INPUT_SIZE))  # before, its lazy layers have no parameters

    def loss(inputs: Tensor, targets: Tensor) -> Tensor:
        state, logits = None, []
        for vectors in inputs:
            output, state = network(vectors, state)
            logits.append(output)
        return functional.binary_cross_entropy_with_logits(torch.stack(logits), targets)

    return Peer(f"mthrok dnc R={read_heads}", "dnc", read_heads, network, loss)


def pypi_dnc(source: ModuleType, read_heads: int) -> Peer:
    """The DNC of dnc 1.1.0, with one LSTM layer where its default is two.

    It leaves out the read feedback: its loop over time is inside `forward`, over inputs prepared before it, so the
    controller sees zeros instead of the paper's last read vectors. The controller starts from a random state.
    Keys and written vectors pass through tanh, a strength is softplus. It gives as many outputs as it has inputs; the
    last is not asked for.
    """
    network = source.DNC(
        INPUT_SIZE,
        HIDDEN_SIZE,
        num_hidden_layers=1,
        batch_first=False,
        nr_cells=DNC_MEMORY_SIZE,
        cell_size=DNC_WORD_SIZE,
        read_heads=read_heads,
        clip=CLIP,
    )

    def loss(inputs: Tensor, targets: Tensor) -> Tensor:
        logits, _ = network(inputs)
        return functional.binary_cross_entropy_with_logits(logits[..., :OUTPUT_SIZE], targets)

    return Peer(f"dnc 1.1.0 R={read_heads}", "dnc", read_heads, network, loss)
