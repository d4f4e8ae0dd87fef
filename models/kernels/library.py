"""The library of the kernels, loaded once, and the structures that it is called with: those of its headers."""

import ctypes
import functools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.kernels.build import library_paths

logger = logging.getLogger(__name__)

Integer, Float, Pointer = ctypes.c_int64, ctypes.c_double, ctypes.c_void_p


def _fields(kinds: Mapping[Any, str]) -> Sequence[tuple[str, Any]]:
    return [(name, kind) for kind, names in kinds.items() for name in names.split()]


class Linear(ctypes.Structure):
    """`linear`."""

    _fields_ = _fields({Integer: "inputs outputs", Pointer: "weights bias transposed d_weights d_bias"})


class Layer(ctypes.Structure):
    """`layer`."""

    _fields_ = [
        *_fields({Integer: "kind activation size cells", Float: "forget_bias cell_clip projection_clip"}),
        *_fields({Linear: "gates second", Pointer: "peepholes d_peepholes"}),
    ]


class Model(ctypes.Structure):
    """`model`."""

    _fields_ = [
        *_fields(
            {
                Integer: "kind layers input_size output_size output_activation output_groups slots word reads writes "
                "strength linked masking deallocation link_sharpening style in_turn signed_heads shift_width",
                Float: "clip",
                Pointer: "controller",
                Linear: "interface output",
            }
        ),
        *_fields({Integer: "read_keys write_keys erase add strengths gates modes shifts read_masks write_masks"}),
        *_fields({Integer: "sharpness key_signs add_signs"}),
    ]


class CellStates(ctypes.Structure):
    """`cell_states`."""

    _fields_ = _fields({Pointer: "h c"})


class States(ctypes.Structure):
    """`states`."""

    _fields_ = _fields({Pointer: "memory read_weights write_weights read_vectors usage link precedence cells"})


class Walk(ctypes.Structure):
    """`walk`."""

    _fields_ = _fields(
        {Integer: "total first batch steps base stride work_stride", Pointer: "lengths lists work"},
    )


class Library:
    """The functions of a library, and the type of the numbers that it was compiled for."""

    def __init__(self, path: Path) -> None:
        """Raises OSError where there is no such library, or it is of another machine."""
        loaded = ctypes.CDLL(str(path))
        self.runs_here = bool(loaded.engram_runs_here())
        self.dtype = np.dtype(f"f{loaded.engram_number()}")
        self.work = _declared(loaded.engram_work, Integer, Pointer, Integer, Integer)
        self.backward_scratch = _declared(loaded.engram_backward_scratch, Integer, Pointer, Integer)
        self.step = _declared(loaded.engram_step, None, *[Pointer] * 4, *[Integer] * 2, *[Pointer] * 5)
        self.walk = _declared(loaded.engram_walk, None, *[Pointer] * 3, Integer, *[Pointer] * 2)
        self.backward = _declared(loaded.engram_backward, None, *[Pointer] * 7)
        self.weights = _declared(loaded.engram_weights, None, *[Pointer] * 2, *[Integer] * 2)
        self.take = _declared(loaded.engram_take, None, *[Pointer] * 3, Integer)
        self.function = _declared(loaded.engram_function, None, Integer, *[Pointer] * 2, Integer)


def _declared(function: Any, returns: Any, *takes: Any) -> Any:
    function.restype, function.argtypes = returns, takes
    return function


@functools.cache
def library() -> Library | None:
    """Return the fastest library that this processor runs, or None, with a line in the log, where there is none."""
    why = "there are none for this machine"
    for path in library_paths():
        try:
            loaded = Library(path)
        except (OSError, AttributeError) as error:  # none, or one that was built from other sources
            why = f"{error}; python -m models.kernels.build makes them (pip install ziglang)"
            continue
        if loaded.runs_here:
            return loaded
        why = f"this processor lacks what {path.name} needs (AVX2 and FMA, or AVX-512)"
    logger.info("no fused kernels: %s", why)
    return None
