"""The activation of an interface vector, with forced gates: one program for each row."""

import triton
import triton.language as tl

from kernels.gpu.src.look_up import softmax

IDENTITY, SIGMOID, SOFTPLUS, ONEPLUS, TANH = map(tl.constexpr, range(5))


@triton.jit
def log1p(values):
    """Return ln(1 + x), x not negative, with the precision of small x."""
    sums = 1 + values
    return tl.where(sums == 1, values, tl.log(sums) * (values / tl.where(sums == 1, 1.0, sums - 1)))


@triton.jit
def activate(
    vectors, controls, activations, forced,
    X: tl.constexpr, XP: tl.constexpr,
    FIRST: tl.constexpr, GROUPS: tl.constexpr, GROUP: tl.constexpr, GP: tl.constexpr,
):  # fmt: skip
    """Activate [B, X] numbers: each by itself, and GROUPS groups of GROUP numbers from FIRST on by a softmax.

    activations: int32 [X]; forced: [X], NaN where a control is free.
    """
    row, place = tl.program_id(0).to(tl.int64) * X, tl.arange(0, XP)
    is_control = place < X
    values = tl.load(vectors + row + place, mask=is_control, other=0.0)
    by = tl.load(activations + place, mask=is_control, other=0)
    softplus = tl.where(values > 0, values, 0.0) + log1p(tl.exp(-tl.abs(values)))
    values = tl.where(by == SIGMOID, tl.sigmoid(values), values)
    values = tl.where(by == SOFTPLUS, softplus, values)
    values = tl.where(by == ONEPLUS, 1 + softplus, values)
    values = tl.where(by == TANH, 2 * tl.sigmoid(2 * values) - 1, values)
    held = tl.load(forced + place, mask=is_control, other=0.0)
    is_grouped = (place >= FIRST) & (place < FIRST + GROUPS * GROUP)
    tl.store(controls + row + place, tl.where(held == held, held, values), mask=is_control & ~is_grouped)
    for group in tl.static_range(GROUPS):
        member = tl.arange(0, GP)
        place, is_member = FIRST + group * GROUP + member, member < GROUP
        values = tl.load(vectors + row + place, mask=is_member, other=float("-inf"))
        held = tl.load(forced + place, mask=is_member, other=0.0)
        tl.store(controls + row + place, tl.where(held == held, held, softmax(values)), mask=is_member)
