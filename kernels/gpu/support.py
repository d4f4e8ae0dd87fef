"""The models that these kernels compute, by their configs as plain values. Standard library only."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from kernels.support import is_bounded, not_fused

PLAIN: dict[str, dict[str, Any]] = {
    "rnn": {},
    "dnc": {"programs": 1},
    "ntm": {"programs": 1, "order": "together", "style": "paper", "signed_heads": False},
}
"""Options of models with the only value that has a kernel; torch computes the others."""

LARGE = frozenset({"memory", "link"})
"""The leaves of a state that may be rounded to bfloat16, to halve its bytes: all others are small beside them."""


def not_on_gpu(kind: str, config: Mapping[str, Any]) -> str | None:
    """Return why these kernels cannot compute a model, or None where they can."""
    reason = not_fused(kind, config)
    if reason is not None:
        return reason
    for name, value in PLAIN[kind].items():
        if config.get(name, value) != value:
            return f"its {name} is {config[name]!r}"
    return None


def why_no_triton() -> str | None:
    """Return why these kernels cannot run here, or None where Triton is installed."""
    return None if find_spec("triton") else "Triton is not installed, which comes with torch for CUDA"


def why_copied(config: Mapping[str, Any]) -> str | None:
    """Return why each step of a model needs a copy of its states, slower than torch's steps; None where none does."""
    return None if is_bounded(config) else "the outputs of its controller are not bounded"
