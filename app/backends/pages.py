"""Return pages of arrays to the system while the arrays live."""

import ctypes
import mmap
import sys
from typing import Any

from numpy.typing import NDArray

DONT_NEED, NO_HUGE_PAGE = 4, 15
"""The advice of madvise(2) in Linux: drop the content, and do not fill the range with huge pages again."""

_madvise = None
if sys.platform == "linux":
    _madvise = ctypes.CDLL(None, use_errno=True).madvise
    _madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def give_back(values: NDArray[Any]) -> int:
    """Return the pages that lie within a contiguous array to the system; return how many bytes that were.

    The content is undefined afterwards. On systems other than Linux, nothing is returned.
    """
    start = -(-values.ctypes.data // mmap.PAGESIZE) * mmap.PAGESIZE
    size = (values.ctypes.data + values.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE - start
    if _madvise is None or size <= 0 or not values.flags.c_contiguous:
        return 0
    _madvise(start, size, NO_HUGE_PAGE)  # refused by a system without huge pages, which need not matter
    return size if _madvise(start, size, DONT_NEED) == 0 else 0
