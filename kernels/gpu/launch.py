"""The arrays that the kernels of a step are launched on."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import triton
from torch import Tensor

MOST_WARPS = 8

THREAD_NUMBERS = 32
"""Numbers of a tile that a thread holds, about."""


class Launch(NamedTuple):
    """The states and the rows of a batch; leaves and rows are changed in place."""

    leaves: Mapping[str, Tensor]
    """The leaves of all states of an arena, by name: [slots, ...] each."""
    slots: Tensor
    """The slot of each row: int32 [B], -1 for a row without a session."""
    spare: int
    """The slot that nobody has, for what needs one for every row."""
    rows: Mapping[str, Tensor]
    """Arrays of the batch, by name: [B, ...] each."""


def options_for(numbers: int) -> dict[str, Any]:
    """Return the options of a kernel whose programs hold this many numbers at once."""
    warps = triton.next_power_of_2(numbers) // (32 * THREAD_NUMBERS)
    return {"num_warps": min(MOST_WARPS, max(1, warps)), "enable_fp_fusion": True}
