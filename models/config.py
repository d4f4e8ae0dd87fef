"""Frozen config dataclasses from plain values (TOML, JSON) and back, with errors that name the key."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

C = TypeVar("C")


class ConfigError(ValueError):
    """A config value that cannot be used; the message names the key, the value and what was expected."""


def from_values(cls: type[C], values: Mapping[str, Any], where: str) -> C:
    """Build the dataclass `cls` from plain values; a key unknown, missing or of another type is an error.

    where: the name of the values, for the message ("model", "training", ...).
    """
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise ConfigError(f"{where}: unknown key {unknown[0]!r}; known keys are {', '.join(fields)}")
    missing = [name for name, field in fields.items() if name not in values and _required(field)]
    if missing:
        raise ConfigError(f"{where}: key {missing[0]!r} is missing")
    hints = typing.get_type_hints(cls)
    checked = {name: _check(value, hints[name], f"{where}.{name}") for name, value in values.items()}
    return cls(**checked)


def require_at_least(config: object, minimum: float, *names: str) -> None:
    """Raise ConfigError unless every named field of `config` is at least `minimum`."""
    for name in names:
        value = getattr(config, name)
        if not value >= minimum:  # so that NaN is refused
            raise ConfigError(f"{type(config).__name__}.{name} must be at least {minimum}, got {value}")


def _required(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _check(value: Any, hint: Any, where: str) -> Any:
    """Return `value` if it is of the annotated type, else raise ConfigError.

    An int is accepted as a float, a list as a tuple, and a number n as the range from n to n.
    """
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        if value not in typing.get_args(hint):
            raise ConfigError(f"{where}: expected one of {', '.join(map(repr, typing.get_args(hint)))}, got {value!r}")
        return value
    if origin is tuple:
        return _check_tuple(value, typing.get_args(hint), where)
    allowed = typing.get_args(hint) if origin in (typing.Union, types.UnionType) else (hint,)
    classes = tuple(typing.get_origin(option) or option for option in allowed)
    if float in classes and type(value) is int:
        return float(value)
    if not isinstance(value, classes) or (isinstance(value, bool) and bool not in classes):
        expected = " or ".join(option.__name__ for option in classes)
        raise ConfigError(f"{where}: expected {expected}, got {value!r}")
    return value


def _check_tuple(value: Any, hints: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    """Return `value` as the tuple of these types; (T, ...) is one of any length."""
    if hints == (int, int) and type(value) is int:
        return value, value
    many = len(hints) == 2 and hints[1] is ...
    if not isinstance(value, list | tuple) or not (many or len(value) == len(hints)):
        expected = "a list" if many else f"a list of {len(hints)}"
        raise ConfigError(f"{where}: expected {expected}, got {value!r}")
    each = [hints[0]] * len(value) if many else hints
    return tuple(
        _check(item, hint, f"{where}[{index}]") for index, (item, hint) in enumerate(zip(value, each, strict=True))
    )
