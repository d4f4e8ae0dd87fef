"""Forced gates: those of a model that a session holds at given values, checked, and as one text.

The text is canonical JSON, so equal forces are equal texts: sessions of one text share an arena and a batch. Stores and
snapshots keep it.
"""

import json
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from app.errors import InvalidRequest

GATES = {
    "dnc": ("write_gate", "allocation_gate", "free_gates", "read_modes"),
    "ntm": ("interpolation_gate", "shift_weights"),
}
"""The gates of each kind of model that can be forced, by the names of their traces."""

BACKENDS = ("fused", "torch")
"""The back ends that can force gates; an ONNX graph has its gates inside."""

ROUNDING = 1e-5
"""How far the sum of a head's modes or shifts may be from 1: float32 has no thirds."""


def force_document(force: str | None) -> dict[str, Any] | None:
    """Return forced gates as clients see them: gate -> nested lists."""
    return None if force is None else json.loads(force)


def force_text(
    asked: Mapping[str, Any] | None, model: str, kind: str, backend: str, shapes: Mapping[str, Sequence[int]]
) -> str | None:
    """Return the text of the gates that a client wants to force; None where it forces none.

    asked: gate -> nested lists in the shape of its trace; null for an element, or for a head of several numbers, that
    is free. kind: of the model; shapes: of its traces. Raises InvalidRequest.
    """
    if not asked:
        return None
    known = [name for name in GATES.get(kind, ()) if name in shapes]
    if not known:
        _refuse(
            "force", next(iter(asked)), f"{model} is of kind {kind} and has no gates that can be forced", "no force"
        )
    if backend not in BACKENDS:
        _refuse(
            "force",
            next(iter(asked)),
            f"{model} is served by the back end {backend}, which cannot force gates: serve it with --backend fused "
            "or torch",
            "no force",
        )
    checked = {name: _gate(name, asked[name], known, shapes) for name in sorted(asked)}
    forced = {name: gate for name, gate in checked.items() if any(part is not None for part in gate)}
    return json.dumps(forced, separators=(",", ":")) if forced else None


def _gate(name: str, gate: Any, known: Sequence[str], shapes: Mapping[str, Sequence[int]]) -> list[Any]:
    """Return the values of a gate, checked."""
    if name not in known:
        _refuse("force", name, f"there is no gate {reprlib.repr(name)} to force", f"one of {', '.join(known)}")
    place, (count, *sizes) = f"force.{name}", shapes[name]
    if type(gate) is not list or len(gate) != count:
        _refuse(place, gate, "wrong shape", f"a list of {count}, one for each head")
    check = _share if sizes else _number
    return [None if part is None else check(f"{place}[{head}]", part, *sizes) for head, part in enumerate(gate)]


def _number(place: str, value: Any) -> float:
    """Return a number from 0 to 1, checked."""
    if type(value) not in (int, float) or not 0 <= value <= 1:
        _refuse(place, value, "wrong value", "a number from 0 to 1, or null")
    return float(value) + 0.0  # which makes 0 of -0


def _share(place: str, values: Any, size: int) -> list[float]:
    """Return the numbers of one head, which sum to 1, checked."""
    if type(values) is not list or len(values) != size:
        _refuse(place, values, "wrong shape", f"a list of {size} numbers that sum to 1, or null")
    numbers = [_number(f"{place}[{number}]", value) for number, value in enumerate(values)]
    if abs(sum(numbers) - 1) > ROUNDING:
        _refuse(place, values, f"the sum is {sum(numbers):g}", f"{size} numbers that sum to 1, or null")
    return numbers


def _refuse(place: str, value: Any, reason: str, expected: str) -> NoReturn:
    got = reprlib.repr(value)
    raise InvalidRequest(f"{place}: {reason}; expected {expected}, got {got}", place=place, expected=expected, got=got)
