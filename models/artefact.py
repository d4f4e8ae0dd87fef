"""Load the model of a checkpoint, for the trainer's tools and the torch back end."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from models.config import ConfigError
from models.contract import MemoryModel, schemas
from models.laws import LawError
from models.manifest import GRAPH_KIND, Manifest, ManifestError, check_header, read_manifest, weights_file
from models.registry import build
from models.state import flatten, map_leaves


class ServedStep(nn.Module):
    """A model's step as a function of plain tensors, which is exported and served.

    It returns the activated outputs, then the next state's leaves, then the traces: those named by `trace`, in that
    order, or all of the model's.
    """

    def __init__(self, model: MemoryModel[Any], trace: Iterable[str] | None = None) -> None:
        super().__init__()
        self.model = model
        with torch.no_grad():
            self.like = model.initial_state(1)
        self.names = list(flatten(self.like))
        self.trace = None if trace is None else tuple(trace)

    def forward(self, inputs: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
        """Take one step. leaves: the state's, in the order of `names`, of any memory size."""
        remaining = iter(leaves)
        state = map_leaves(lambda _: next(remaining), self.like)
        outputs, next_state, trace = self.model.step(inputs, state)
        traces = [trace[name] for name in (trace if self.trace is None else self.trace)]
        return (self.model.activate(outputs), *flatten(next_state).values(), *traces)


def load(directory: Path) -> tuple[MemoryModel[Any], Manifest]:
    """Return the model of the checkpoint in `directory`, on the CPU, and its manifest.

    The manifest of an earlier version may lack some of the model's traces.
    Raises ManifestError, and LawError for a class of a user's own that breaks a law.
    """
    manifest = read_manifest(directory)
    if manifest.kind == GRAPH_KIND:
        raise ManifestError(
            f"{directory}: an imported graph is no model of torch: it can be served as it is, and no more"
        )
    path = weights_file(directory, manifest)
    try:
        check_header(path)
        model = build(manifest.kind, manifest.config)
        model.load_state_dict(load_file(path))
    except LawError:
        raise
    except (ConfigError, SafetensorError, RuntimeError) as error:
        raise ManifestError(f"{path}: {error}") from error
    _check_schemas(directory, model, manifest)
    return model.eval(), manifest


def _check_schemas(directory: Path, model: MemoryModel[Any], manifest: Manifest) -> None:
    """Raise ManifestError where the model differs from its manifest, but for traces that the manifest lacks."""
    state, trace = schemas(model)
    trace = {name: shape for name, shape in trace.items() if name in manifest.trace}
    sizes: dict[str, Any] = {"input_size": model.input_size, "output_size": model.output_size}
    for name, value in (sizes | {"state": state, "trace": trace}).items():
        described = getattr(manifest, name)
        if described != value:
            raise ManifestError(f"{directory}: the manifest says {name} {described}, but its config makes {value}")
