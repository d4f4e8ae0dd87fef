"""The memory's part of an NTM step whose heads act together: `look_up`, then `move`; models/ntm.py has the equations.

A program is a row of the batch. Arguments are as those of the kernels in dnc.py. Heads: H = R + V, the read heads
first.
"""

import triton
import triton.language as tl

from kernels.gpu.src.look_up import as_column, column_of, columns, compare, content_weights, softmax

SMALLEST_WEIGHT = tl.constexpr(1e-8)
"""As in models/addressing.py."""


@triton.jit
def look_up(
    slots, stride, keys, strengths, memory, contents, scale,
    N, W: tl.constexpr, H: tl.constexpr,
    P: tl.constexpr, C: tl.constexpr, WP: tl.constexpr, HP: tl.constexpr,
):  # fmt: skip
    """Find what every head seeks in the memory as the previous step left it. contents: [B, H, N]."""
    row = tl.program_id(0).to(tl.int64)
    slot, controls = tl.load(slots + row).to(tl.int64), row * stride
    if slot < 0:
        return
    location = tl.arange(0, P)
    is_location = location < N
    memory += slot * N * W
    products, squares = tl.zeros([P, HP], tl.float32), tl.zeros([P, HP], tl.float32)
    for start in range(0, W, C):
        words, _, _, column, is_column = columns(memory, start, location, is_location, W, C)
        of_columns = compare(words, keys + controls, keys, column, is_column, H, HP, W, False)
        products, squares = products + of_columns[0], squares + of_columns[1]
    content = content_weights(
        products, squares, keys + controls, keys, strengths + controls, scale, is_location, H, HP, W, WP, False
    )
    head = tl.arange(0, HP)
    place = (row * H + head)[None, :] * N + location[:, None]
    tl.store(contents + place, content, mask=is_location[:, None] & (head < H)[None, :])


@triton.jit
def move(
    slots, stride, interpolation_gates, shift_weights, sharpening, erase_vectors, add_vectors,
    memory, read_weights, write_weights, read_vectors, contents, gated_weights, shifted_weights,
    N, W: tl.constexpr, R: tl.constexpr, V: tl.constexpr, S: tl.constexpr,
    P: tl.constexpr, C: tl.constexpr, RP: tl.constexpr, VP: tl.constexpr,
):  # fmt: skip
    """Interpolate, shift and sharpen the weightings of all heads; then read, then write.

    contents, gated_weights, shifted_weights: [B, H, N].
    """
    row = tl.program_id(0).to(tl.int64)
    slot, controls = tl.load(slots + row).to(tl.int64), row * stride
    if slot < 0:
        return
    location = tl.arange(0, P)
    is_location = location < N
    memory += slot * N * W
    reading, writing = tl.zeros([P, RP], tl.float32), tl.zeros([P, VP], tl.float32)
    for head in tl.static_range(R + V):
        of_head = (row * (R + V) + head) * N
        if head < R:
            previous = read_weights + (slot * R + head) * N
        else:
            previous = write_weights + (slot * V + head - R) * N
        gate = tl.load(interpolation_gates + controls + head)
        shifted = tl.zeros([P], tl.float32)
        for shift in tl.static_range(S):
            source = (location + (N * S + S // 2 - shift)) % N
            before = tl.load(previous + source, mask=is_location, other=0.0)
            alike = tl.load(contents + of_head + source, mask=is_location, other=0.0)
            gated = before + gate * (alike - before)
            shifted += tl.load(shift_weights + controls + head * S + shift) * gated
            if shift == S // 2:
                tl.store(gated_weights + of_head + location, gated, mask=is_location)
        tl.store(shifted_weights + of_head + location, shifted, mask=is_location)
        gamma = tl.load(sharpening + controls + head)
        powers = gamma * tl.log(tl.where(shifted < SMALLEST_WEIGHT, SMALLEST_WEIGHT, shifted))
        powers = tl.where(is_location, powers, float("-inf"))
        weights = softmax(powers)
        tl.debug_barrier()  # others of this program still read the weights of the previous step
        tl.store(previous + location, weights, mask=is_location)
        if head < R:
            reading += as_column(weights, head, RP)
        else:
            writing += as_column(weights, head - R, VP)

    for start in range(0, W, C):
        words, place, is_number, column, is_column = columns(memory, start, location, is_location, W, C)
        for head in tl.static_range(R):
            vector = tl.sum(words * column_of(reading, head, RP)[:, None], 0)
            tl.store(read_vectors + (slot * R + head) * W + column, vector, mask=is_column)
        added = tl.zeros([P, C], tl.float32)
        for head in tl.static_range(V):
            share = column_of(writing, head, VP)[:, None]
            erased = tl.load(erase_vectors + controls + head * W + column, mask=is_column, other=0.0)
            words *= 1 - share * erased[None, :]
            added += share * tl.load(add_vectors + controls + head * W + column, mask=is_column, other=0.0)[None, :]
        tl.store(memory + place, words + added, mask=is_number)
