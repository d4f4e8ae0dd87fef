"""A model's state: nested NamedTuples of tensors inside, a flat mapping name -> tensor at every border.

    DNCState(controller=LSTMState(h, c), memory, ...)  <->  {"controller.h": h, "controller.c": c, "memory": ...}

Every leaf has the batch as axis 0. A field that a variant of a model does not have is None, and no leaf.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from torch import Tensor

S = TypeVar("S", bound=tuple[Any, ...])


class StateError(ValueError):
    """A state that does not fit a model; the message names the leaf, the expected shape and the given one."""


def flatten(state: tuple[Any, ...]) -> dict[str, Tensor]:
    """Return the leaves of `state` by name, in the order of the fields: {"memory": [B, N, W], ...}."""
    return dict(_leaves(state, ""))


def unflatten(leaves: Mapping[str, Tensor], like: S) -> S:
    """Return the state with the structure of `like` and the given leaves.

    Raises StateError if a leaf is missing or unknown, or differs from `like` in shape (but for the batch) or dtype.
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


def check_state(state: Any, shapes: tuple[Any, ...], batch: int, name: str = "") -> None:
    """Raise StateError unless `state` has the structure of `shapes`, and leaves of those shapes for `batch` rows.

    shapes: a state with the shape of each leaf, without the batch axis, in its place (`shapes_of`). The types of the
    NamedTuples must be those of `shapes` too: a plain tuple (c, h) may have the shapes of (h, c).
    name: the path of this part of the state, for the message.
    """
    if type(state) is not type(shapes):
        where = f"state part {name!r}" if name else "state"
        named = ", ".join(f"{field}=..." for field in shapes._fields)  # type: ignore[attr-defined]
        raise StateError(
            f"{where}: expected {_described(shapes, batch)}, got {_described(state)}; pass the state that "
            f"initial_state or a step returned, or name the leaves: {type(shapes).__name__}({named})"
        )
    prefix = f"{name}." if name else ""
    for field, value, expected in zip(shapes._fields, state, shapes, strict=True):  # type: ignore[attr-defined]
        if isinstance(expected, tuple):
            check_state(value, expected, batch, prefix + field)
        elif _shape_of(value) != (None if expected is None else [batch, *expected]):
            wanted = "None" if expected is None else f"shape {[batch, *expected]}"
            raise StateError(f"state leaf {prefix + field!r}: expected {wanted}, got {_described(value)}")


def shapes_of(state: S) -> S:
    """Return the state with the shape of each leaf in its place, a list without the batch axis."""
    return map_leaves(lambda leaf: list(leaf.shape[1:]), state)


def map_leaves(function: Callable[[Tensor], Any], state: S) -> S:
    """Return a state of the same structure with `function` applied to every leaf."""
    return type(state)(*(_map_value(function, value) for value in state))


def _map_value(function: Callable[[Tensor], Any], value: Any) -> Any:
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


def _shape_of(value: Any) -> list[int] | str | None:
    """Return the shape of a tensor, None for None, and the name of its type for anything else."""
    return list(value.shape) if isinstance(value, Tensor) else None if value is None else type(value).__name__


def _described(value: Any, batch: int | None = None) -> str:
    """Return the types and shapes of (a part of) a state; with a batch, of one of `shapes_of` for that many rows."""
    if isinstance(value, tuple):
        names = [f"{name}=" for name in value._fields] if hasattr(value, "_fields") else [""] * len(value)
        parts = (f"{name}{_described(part, batch)}" for name, part in zip(names, value, strict=True))
        return f"{type(value).__name__}({', '.join(parts)})"
    return str([batch, *value] if isinstance(value, list) and batch is not None else _shape_of(value))
