"""The library of the kernels, loaded once, if it fits the Python beside it."""

import ctypes
import functools
import logging
from pathlib import Path
from typing import Any

import numpy as np

from kernels.build import fingerprint, library_paths
from kernels.layout import declare, differences

logger = logging.getLogger(__name__)

COMMAND = "python -m kernels.build"


class NotFitting(RuntimeError):
    """A library of other sources: its structures, numbers or functions may differ from those of Python."""


class Library:
    """The functions of a library, and the dtype that it was compiled for."""

    def __init__(self, path: Path) -> None:
        """Load a library. Raises OSError where there is none, or one of another machine; NotFitting."""
        self.path = path
        loaded = None if _is_cut_off(path) else ctypes.CDLL(str(path))
        reason = "the file is cut off" if loaded is None else _why_not_fitting(loaded)
        if loaded is None or reason:
            remedy = f"{COMMAND} builds it again (pip install ziglang)" if fingerprint() else "install Engram again"
            raise NotFitting(f"{path.name} is not used: {reason}; {remedy}")
        declare(loaded)
        self.runs_here = bool(loaded.engram_runs_here())
        self.dtype = np.dtype(f"f{loaded.engram_number()}")
        self.workspace_size, self.scratch_size = loaded.engram_workspace_size, loaded.engram_scratch_size
        self.step, self.make_calls = loaded.engram_step, loaded.engram_make_calls
        self.open_team, self.close_team = loaded.engram_open_team, loaded.engram_close_team
        self.loss, self.gradient_norm = loaded.engram_loss, loaded.engram_gradient_norm
        self.step_weights = loaded.engram_step_weights
        self.gather, self.function = loaded.engram_gather, loaded.engram_function


def _is_cut_off(path: Path) -> bool:
    """Return whether an ELF file ends before its last part, the section headers: to load it would end the process."""
    with path.open("rb") as file:
        head = file.read(64)
    if not head.startswith(b"\x7fELF\x02\x01"):  # 64 bits, little-endian; other files have no such fault
        return False
    place, size, count = (int.from_bytes(head[start:stop], "little") for start, stop in ((40, 48), (58, 60), (60, 62)))
    return path.stat().st_size < max(64, place + size * count)


def _why_not_fitting(loaded: Any) -> str | None:
    try:
        loaded.engram_sources.restype = ctypes.c_char_p
        built_from, here = loaded.engram_sources().decode(), fingerprint()
        if here and built_from != here:
            return "it was built from other sources than those beside it"
        return next(iter(differences(loaded)), None)
    except AttributeError:
        return "it was built before libraries reported their sources"


@functools.cache
def _fastest() -> Library | str:
    """Return the fastest library that this processor runs, or why there is none, which is logged once."""
    reasons, refused = [], False
    for path in library_paths():
        try:
            loaded = Library(path)
        except NotFitting as error:
            reasons.append(str(error))
            refused = True
            continue
        except OSError as error:
            reasons.append(f"{error}; {COMMAND} builds it (pip install ziglang)")
            continue
        if loaded.runs_here:
            if refused:
                logger.warning("%s computes instead: %s", path.name, "; ".join(reasons))
            return loaded
        reasons.append(f"this processor lacks what {path.name} needs (AVX2 and FMA, or AVX-512)")
    why = "; ".join(reasons) or "there are none for this machine"
    logger.log(logging.WARNING if refused else logging.INFO, "no fused kernels: %s", why)
    return why


def library() -> Library | None:
    """Return the fastest library that this processor runs, or None where there is none that fits."""
    found = _fastest()
    return found if isinstance(found, Library) else None


def why_no_library() -> str:
    """Return why `library` returns None, with the remedy."""
    found = _fastest()
    return found if isinstance(found, str) else ""
