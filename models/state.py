"""A model's state: nested NamedTuples of tensors inside, a flat mapping name -> tensor at every border.

    DNCState(controller=LSTMState(h, c), memory, ...)  <->  {"controller.h": h, "controller.c": c, "memory": ...}

Every leaf has the batch as axis 0. A field that a variant of a model does without is None, and no leaf.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from torch import Tensor

S = TypeVar("S", bound=tuple[Any, ...])


class StateError(ValueError):
    """A flat state that does not fit a model; the message names the leaf, what was expected and what came."""


def flatten(state: tuple[Any, ...]) -> dict[str, Tensor]:
    """Return the leaves of `state` by name, in the order of the fields: {"memory": [B, N, W], ...}."""
    return dict(_leaves(state, ""))


def unflatten(leaves: Mapping[str, Tensor], like: S) -> S:
    """Return the state with the structure of `like` and the given leaves.

    Raises StateError where a leaf is missing or unknown, or differs from `like` in shape (but for the batch) or dtype.
    """
    expected = flatten(like)
    for name in expected:
        if name not in leaves:
            raise StateError(f"state leaf {name!r} is missing; expected {', '.join(expected)}")
    for name, leaf in leaves.items():
        if name not in expected:
            raise StateError(f"unknown state leaf {name!r}; expected {', '.join(expected)}")
        _check_leaf(name, leaf, expected[name])
    remaining = iter([leaves[name] for name in expected])
    return map_leaves(lambda _: next(remaining), like)


def map_leaves(function: Callable[[Tensor], Tensor], state: S) -> S:
    """Return a state of the same structure with `function` applied to every leaf."""
    return type(state)(*(_map_value(function, value) for value in state))


def _map_value(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    if isinstance(value, tuple):
        return map_leaves(function, value)
    return None if value is None else function(value)


def _leaves(state: tuple[Any, ...], prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in zip(state._fields, state, strict=True):  # type: ignore[attr-defined]
        if isinstance(value, tuple):
            yield from _leaves(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", value


def _check_leaf(name: str, leaf: Tensor, like: Tensor) -> None:
    if leaf.shape[1:] != like.shape[1:] or leaf.dim() != like.dim():
        raise StateError(f"state leaf {name!r}: expected shape [B, {_shape(like)}], got {list(leaf.shape)}")
    if leaf.dtype != like.dtype:
        raise StateError(f"state leaf {name!r}: expected {like.dtype}, got {leaf.dtype}")


def _shape(tensor: Tensor) -> str:
    return ", ".join(map(str, tensor.shape[1:]))
