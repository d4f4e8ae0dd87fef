"""The graph of a user's own step in torch: `step(inputs, state) -> outputs, state`, or with a trace as the third.

A factory, named as `module:factory` or `file.py:factory`, returns the step, an example of its inputs, and the state
before the first step. The batch is axis 0 of each tensor. Inputs, outputs, state and trace are each a tensor, or a dict
or a NamedTuple of tensors, also nested.
"""

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from training.export import TOLERANCE, export_module
from training.graphs.alone import Array, FileAlone, Step
from training.graphs.spec import BATCH, GraphSpec, Leaf, Part, plain_name
from training.graphs.verify import draw_inputs
from training.importers.variables import ImportFailed
from training.own import run_file

EXAMPLE_ROWS = 3
"""Rows of the examples that the exporter traces: a size that no other axis is likely to have."""

STEPS = 100

NOT_THE_USERS = (Path(__file__).parents[1], Path(importlib.__file__).parent)
"""Directories, beside site-packages, of files whose lines an error does not name: training/ and importlib."""

PARTS = ("inputs", "state", "outputs", "next", "trace")


class TorchStep(nn.Module):
    """A step as a function of plain tensors: those of the inputs, then the leaves of the state.

    It returns the outputs, then the next leaves, then the traces.
    """

    def __init__(self, step: Callable[..., Any], inputs: Any, state: Any) -> None:
        super().__init__()
        self.step = step
        owner = getattr(step, "__self__", None)
        self.owner = owner if isinstance(owner, nn.Module) and owner is not step else None
        self._inputs, self._state = inputs, state

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        remaining = iter(tensors)
        inputs, state = (_rebuilt(like, remaining) for like in (self._inputs, self._state))
        outputs, following, trace = _results(self.step(inputs, state))
        return tuple(tensor for part in (outputs, following, trace) for tensor in named(part).values())


@dataclass(frozen=True)
class Factory:
    """A user's factory, called. where: its name, for errors."""

    where: str
    step: TorchStep
    inputs: dict[str, Tensor]
    state: dict[str, Tensor]
    names: dict[str, list[str]]
    """The names of the outputs, of the next state and of the traces."""


def load_factory(name: str) -> Factory:
    """Call a factory, and its step once. Raises ImportFailed, which names the fault."""
    function = _function(name)
    made = _attempt(name, "the factory", function)
    if not isinstance(made, tuple) or len(made) != 3 or not callable(made[0]):
        raise ImportFailed(f"{name}: the factory must return (step, inputs, state), got {_kind(made)}")
    step, inputs, state = made
    module = TorchStep(step, inputs, state).eval()
    sides = {"inputs": _tensors(name, "inputs", inputs), "state": _tensors(name, "state", state)}
    given = [tensor for side in sides.values() for tensor in side.values()]
    _check_rows(name, sides)
    with torch.no_grad():
        outputs, following, trace = _results(_attempt(name, "the step", lambda: step(inputs, state)))
    names = {
        part: list(_tensors(name, part, value))
        for part, value in zip(PARTS[2:], (outputs, following, trace), strict=True)
    }
    if names["next"] != list(sides["state"]):
        raise ImportFailed(
            f"{name}: the next state must have the leaves {', '.join(sides['state'])}, got {', '.join(names['next'])}"
        )
    _check_pure(name, module, given)
    return Factory(name, module, sides["inputs"], sides["state"], names)


def graph_of(factory: Factory) -> tuple[onnx.ModelProto, GraphSpec]:
    """Return the graph of a step and its specification. Raises ImportFailed if torch cannot export it.

    It is exported for any number of rows, or, if that fails, for one.
    """
    names_in = [*_prefixed("inputs", factory.inputs), *_prefixed("state", factory.state)]
    names_out = [name for part in PARTS[2:] for name in _prefixed(part, factory.names[part])]
    tensors = [*factory.inputs.values(), *factory.state.values()]
    batch = torch.export.Dim("batch", min=1)
    try:
        rows = tuple(tensor[:1].expand(EXAMPLE_ROWS, *tensor.shape[1:]).clone() for tensor in tensors)
        shapes = (tuple({0: batch} for _ in rows),)
        model = _exported(factory, rows, names_in, names_out, dynamic_shapes=shapes)
    except Exception:  # torch.export has no class of its own for a batch that the step fixes
        model = _attempt(
            factory.where,
            "the export by torch",
            lambda: _exported(factory, tuple(tensor[:1].clone() for tensor in tensors), names_in, names_out),
        )
    return model, _spec(factory)


def check_against_torch(factory: Factory, alone: FileAlone, after_step: Callable[[int, int], object]) -> float:
    """Return the largest difference of 100 steps of the graph from torch's, each from the same state.

    Relative to the largest number of a tensor if that is above 1. Raises ImportFailed if it is beyond TOLERANCE.
    """
    generator, state, worst = np.random.default_rng(0), alone.first(), 0.0
    likes = [tensor[:1] for tensor in factory.inputs.values()]
    for count in range(STEPS):
        inputs = draw_inputs(alone.spec, 1, generator)
        came = alone.step(inputs, state)
        cut = torch.split(torch.from_numpy(inputs), [like.numel() for like in likes], 1)
        parts = [values.reshape(like.shape).to(like.dtype) for values, like in zip(cut, likes, strict=True)]
        with torch.no_grad():
            due = factory.step(*parts, *(torch.from_numpy(np.array(leaf)) for leaf in state.values()))
        difference = _difference(came, [tensor.numpy() for tensor in due], len(factory.names["outputs"]))
        if not difference <= TOLERANCE:
            raise ImportFailed(
                f"{factory.where}: the graph differs from torch by {difference:.2g} at step {count + 1}; at most "
                f"{TOLERANCE:g} was expected"
            )
        worst, state = max(worst, difference), came.state
        after_step(count + 1, STEPS)
    return worst


def _difference(came: Step, due: list[Array], outputs: int) -> float:
    """Return the largest difference of a step from torch's tensors, of which the first are its outputs."""
    vector = np.concatenate([value.reshape(1, -1) for value in due[:outputs]], 1)
    worst = 0.0
    for one, other in zip(came.tensors().values(), (vector, *due[outputs:]), strict=True):
        theirs = other.astype(np.float64)
        scale = max(1.0, float(np.abs(theirs).max(initial=0)))
        worst = max(worst, float(np.abs(one.reshape(theirs.shape) - theirs).max(initial=0)) / scale)
    return worst


def named(value: Any, name: str = "") -> dict[str, Any]:
    """Return the tensors of a nested dict, NamedTuple or tuple by name; a tensor alone has the given name."""
    if value is None:
        return {}
    if isinstance(value, Mapping):
        items = list(value.items())
    elif isinstance(value, tuple):
        items = list(zip(getattr(value, "_fields", range(len(value))), value, strict=True))
    else:
        return {name: value}
    return {
        inner: tensor
        for key, item in items
        for inner, tensor in named(item, f"{name}.{key}" if name else str(key)).items()
    }


def _rebuilt(like: Any, tensors: Any) -> Any:
    """Return the structure of `like` with the next tensors of an iterator."""
    if like is None:
        return None
    if isinstance(like, Mapping):
        return {key: _rebuilt(item, tensors) for key, item in like.items()}
    if isinstance(like, tuple):
        items = [_rebuilt(item, tensors) for item in like]
        return type(like)(*items) if hasattr(like, "_fields") else tuple(items)
    return next(tensors)


def _results(made: Any) -> tuple[Any, Any, Any]:
    """Return outputs, next state and trace. Raises ImportFailed for another number of results."""
    if isinstance(made, tuple) and len(made) in (2, 3):
        return (*made, None)[:3]
    raise ImportFailed(f"the step must return (outputs, state), or (outputs, state, trace), got {_kind(made)}")


def _function(name: str) -> Callable[[], Any]:
    place, colon, function = name.rpartition(":")
    if not colon or not place or not function:
        raise ImportFailed(f"{name}: expected module:factory, or file.py:factory")
    if place.endswith(".py") and not Path(place).is_file():
        raise ImportFailed(f"{name}: there is no file {place}")
    loaded = _attempt(name, f"importing {place}", lambda: _module(place))
    made: Callable[[], Any] | None = getattr(loaded, function, None)
    if not callable(made):
        raise ImportFailed(f"{name}: {place} has no function {function!r}")
    if any(
        p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD for p in inspect.signature(made).parameters.values()
    ):
        raise ImportFailed(f"{name}: {function} must take no arguments: it returns (step, inputs, state)")
    return made


def _module(place: str) -> ModuleType:
    """Return the module of a file, or one found as by `python -m`."""
    if place.endswith(".py"):
        return run_file(Path(place))
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    return importlib.import_module(place)


def _attempt(name: str, what: str, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except ImportFailed:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame for frame in frames if _is_the_users(frame.filename)]
        line = f", line {lines[-1].lineno} of {Path(lines[-1].filename).name}" if lines else ""
        message = str(error).strip().partition("\n")[0]
        raise ImportFailed(f"{name}: {what} failed{line}: {type(error).__name__}: {message}") from error


def _is_the_users(filename: str) -> bool:
    path = Path(filename)
    is_ours = "site-packages" in path.parts or any(path.is_relative_to(place) for place in NOT_THE_USERS)
    return not (filename.startswith("<") or is_ours)


def _kind(value: Any) -> str:
    """Return the type of a value in words, with the types in a tuple."""
    inner = f" of {', '.join(type(item).__name__ for item in value)}" if isinstance(value, tuple) else ""
    return f"a {type(value).__name__}{inner}"


def _tensors(name: str, part: str, value: Any) -> dict[str, Tensor]:
    tensors = named(value)
    for key, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise ImportFailed(f"{name}: {part}{key and '.'}{key} must be a tensor, got {_kind(tensor)}")
    return tensors


def _check_rows(name: str, sides: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Raise ImportFailed unless all tensors have one batch size as their first."""
    rows = {
        f"{side}{key and '.'}{key}": tensor.shape[:1] for side, part in sides.items() for key, tensor in part.items()
    }
    if not sides["inputs"] or len(set(rows.values())) != 1 or torch.Size([]) in rows.values():
        shown = ", ".join(f"{key} {list(size)}" for key, size in rows.items())
        raise ImportFailed(f"{name}: axis 0 of inputs and state must be the batch, of one size, got {shown}")


def _check_pure(name: str, module: TorchStep, given: list[Tensor]) -> None:
    """Raise ImportFailed if a step changes its arguments, or gives other results when it is taken again."""
    generator = torch.Generator().manual_seed(0)
    given = [
        torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype) if tensor.is_floating_point() else tensor
        for tensor in given
    ]
    before = [tensor.clone() for tensor in given]
    with torch.no_grad():
        first = [tensor.clone() for tensor in module(*given)]
    if any(not torch.equal(one, other) for one, other in zip(given, before, strict=True)):
        raise ImportFailed(f"{name}: the step changes its inputs or its state in place: return a new state")
    with torch.no_grad():
        again = module(*given)
    if any(not torch.equal(one, other) for one, other in zip(first, again, strict=True)):
        raise ImportFailed(
            f"{name}: the same step gives other results when it is taken again: keep all state in `state`, and draw no "
            "random numbers"
        )


def _prefixed(part: str, names: Any) -> list[str]:
    return [f"{part}.{name}" if name else part for name in names]


def _exported(
    factory: Factory, tensors: tuple[Tensor, ...], names_in: list[str], names_out: list[str], **more: Any
) -> onnx.ModelProto:
    with torch.no_grad():
        return export_module(factory.step, tensors, input_names=names_in, output_names=names_out, **more)


def _spec(factory: Factory) -> GraphSpec:
    """Return the specification of the graph, which has the user's own names."""

    def parts(side: str, names: Any) -> tuple[Part, ...]:
        return tuple(
            Part(tensor, plain_name(name or side)) for tensor, name in zip(_prefixed(side, names), names, strict=True)
        )

    inputs = tuple(
        replace(part, shape=(BATCH, *tensor.shape[1:]))
        for part, tensor in zip(parts("inputs", factory.inputs), factory.inputs.values(), strict=True)
    )
    state = tuple(
        Leaf(
            f"state.{name}" if name else "state",
            plain_name(name or "state"),
            (BATCH, *leaf.shape[1:]),
            f"next.{name}" if name else "next",
            leaf[0].detach().numpy(),
        )
        for name, leaf in factory.state.items()
    )
    return GraphSpec(
        where=factory.where,
        inputs=inputs,
        state=state,
        outputs=parts("outputs", factory.names["outputs"]),
        trace=parts("trace", factory.names["trace"]),
    )
