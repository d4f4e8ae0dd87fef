"""Products of rows with matrices, and the LSTM cell."""

import triton
import triton.language as tl


@triton.jit
def add_product(
    total, source, of_row, is_row, weights, output, is_output, first,
    WIDTH: tl.constexpr, K: tl.constexpr, INPUTS: tl.constexpr,
):  # fmt: skip
    """Add x W^T for a part of the inputs, which begins at column `first` of W [OUT, K]. source: rows of WIDTH."""
    for start in range(0, WIDTH, INPUTS):
        place = start + tl.arange(0, INPUTS)
        is_input = place < WIDTH
        values = tl.load(
            source + of_row[:, None] * WIDTH + place[None, :], mask=is_row[:, None] & is_input[None, :], other=0.0
        )
        factors = tl.load(
            weights + output[None, :] * K + first + place[:, None],
            mask=is_input[:, None] & is_output[None, :],
            other=0.0,
        )
        total = tl.dot(values, factors, total, input_precision="ieee")
    return total


@triton.jit
def clipped(values, bound):
    """Return values within [-bound, bound], and NaN as it is: a minimum or maximum would drop it."""
    return tl.where(values > bound, bound, tl.where(values < -bound, -bound, values))


@triton.jit(do_not_specialize=["rows"])
def linear(
    slots, by_row, by_slot, also_by_slot, weights, biases, outputs, rows, clip,
    A: tl.constexpr, B: tl.constexpr, C: tl.constexpr, OUT: tl.constexpr, BIASED: tl.constexpr,
    ROWS: tl.constexpr, OUTPUTS: tl.constexpr, INPUTS: tl.constexpr,
):  # fmt: skip
    """Return [rows, OUT]: W [a, b, c] + bias, within [-clip, clip] if clip is not 0. W: [OUT, A + B + C].

    by_row: a, of each row of the batch, [rows, A]; by_slot, also_by_slot: b and c, leaves of its state, [slots, B] and
    [slots, C]. Parts of no width are not read, nor biases that are not there.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    output = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    is_row, is_output = row < rows, output < OUT
    total = tl.zeros([ROWS, OUTPUTS], tl.float32)
    total = add_product(total, by_row, row.to(tl.int64), is_row, weights, output, is_output, 0, A, A + B + C, INPUTS)
    if B > 0:
        slot = tl.load(slots + row, mask=is_row, other=-1).to(tl.int64)
        total = add_product(total, by_slot, slot, slot >= 0, weights, output, is_output, A, B, A + B + C, INPUTS)
    if C > 0:
        slot = tl.load(slots + row, mask=is_row, other=-1).to(tl.int64)
        total = add_product(
            total, also_by_slot, slot, slot >= 0, weights, output, is_output, A + B, C, A + B + C, INPUTS
        )
    if BIASED:
        total += tl.load(biases + output, mask=is_output, other=0.0)[None, :]
    if clip > 0:
        total = clipped(total, clip)
    tl.store(
        outputs + row.to(tl.int64)[:, None] * OUT + output[None, :], total, mask=is_row[:, None] & is_output[None, :]
    )


@triton.jit
def lstm(slots, gates, hidden, h, c, forget_bias, cell_clip, clip, H: tl.constexpr, HP: tl.constexpr):
    """Take the step of an LSTM from its products: c = f c + i j, h = o tanh(c). One program for each row.

    gates: i, j, f, o before their activation, [B, 4, H]; hidden: the outputs, [B, H]; h, c: leaves of the state.
    cell_clip bounds c; clip what is kept of h and c; 0 bounds nothing.
    """
    row, unit = tl.program_id(0).to(tl.int64), tl.arange(0, HP)
    is_unit = unit < H
    slot = tl.load(slots + row).to(tl.int64)
    if slot < 0:
        return
    own, kept = row * 4 * H + unit, slot * H + unit
    entered = tl.sigmoid(tl.load(gates + own, mask=is_unit, other=0.0))
    candidate = 2 * tl.sigmoid(2 * tl.load(gates + own + H, mask=is_unit, other=0.0)) - 1
    remembered = tl.sigmoid(tl.load(gates + own + 2 * H, mask=is_unit, other=0.0) + forget_bias)
    cell = remembered * tl.load(c + kept, mask=is_unit, other=0.0) + entered * candidate
    if cell_clip > 0:
        cell = clipped(cell, cell_clip)
    output = tl.sigmoid(tl.load(gates + own + 3 * H, mask=is_unit, other=0.0)) * (2 * tl.sigmoid(2 * cell) - 1)
    if clip > 0:
        cell, output = clipped(cell, clip), clipped(output, clip)
    tl.store(c + kept, cell, mask=is_unit)
    tl.store(h + kept, output, mask=is_unit)
    tl.store(hidden + row * H + unit, output, mask=is_unit)
