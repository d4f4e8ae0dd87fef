"""The library of the kernels, loaded once, and the structures that it is called with: those of `engram.c`."""

import ctypes
import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from models.kernels.build import library_path

logger = logging.getLogger(__name__)

Integer, Float, Pointer = ctypes.c_int64, ctypes.c_float, ctypes.c_void_p


def _fields(kinds: Mapping[Any, str]) -> Sequence[tuple[str, Any]]:
    return [(name, kind) for kind, names in kinds.items() for name in names.split()]


class Linear(ctypes.Structure):
    """`linear`."""

    _fields_ = _fields({Integer: "inputs outputs", Pointer: "weights bias"})


class Layer(ctypes.Structure):
    """`layer`."""

    _fields_ = [
        *_fields({Integer: "kind activation size cells", Float: "forget_bias cell_clip projection_clip unused"}),
        *_fields({Linear: "gates second", Pointer: "peepholes h c"}),
    ]


class Model(ctypes.Structure):
    """`model`."""

    _fields_ = [
        *_fields(
            {
                Integer: "kind strength layers input_size output_size slots word reads writes shift_width "
                "output_activation linked masking deallocation link_sharpening",
                Float: "clip unused",
                Pointer: "controller",
            }
        ),
        *_fields({Linear: "interface output"}),
        *_fields({Pointer: "memory read_weights write_weights read_vectors usage link precedence"}),
        *_fields({Integer: "read_keys write_keys erase add strengths gates modes shifts"}),
        *_fields({Integer: "read_masks write_masks sharpness"}),
    ]


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the library, or None, with a line in the log, where there is none for this machine."""
    path = library_path()
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError as error:
        logger.info("no fused kernels: %s; python -m models.kernels.build makes them (pip install ziglang)", error)
        return None
    if not loaded.engram_runs_here():
        logger.info("no fused kernels: this processor lacks AVX2 or FMA")
        return None
    loaded.engram_scratch.argtypes = [Pointer, Integer]
    loaded.engram_scratch.restype = Integer
    loaded.engram_step.argtypes = [Pointer, Pointer, Integer, Pointer, Pointer, Pointer, Pointer, Pointer]
    loaded.engram_step.restype = None
    loaded.engram_function.argtypes = [Integer, Pointer, Pointer, Integer]
    loaded.engram_function.restype = None
    return loaded
