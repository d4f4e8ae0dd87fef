"""The memory's part of a DNC step: `write`, `link`, `mix`, `read`; models/addressing.py has the equations.

A program of `write` and of `read` is a row of the batch; one of `link` some rows of a link matrix; one of `mix` a
head. Arguments: slots, the arena's slot of each row, int32 [B], below 0 for a row without a session; then the controls
of a row, activated, whose rows lie `stride` numbers apart; the leaves of the state by slot, changed in place; arrays
of the batch's rows, which traces show. N is no constant: the sizes with one power of two share a compiled kernel.
Several threads may load one number: a barrier stands between the loads of a leaf and its stores.

    write -----------> link ----------> mix ---------> read
     u, w^w, M,         L, with f        w^r, from      r, and p
     and contents       and parts of b   f, b, contents
"""

import triton
import triton.language as tl

from kernels.gpu.src.look_up import EPSILON, as_column, column_of, columns, compare, content_weights, softmax


@triton.jit
def in_order(values):
    """Return whole numbers in the order of float32 numbers; its own inverse on them as bits."""
    return values ^ ((values >> 31) & 0x7FFFFFFF)


@triton.jit
def allocation_weights(used, location, N):
    """Return a[phi_j] = (1 - u[phi_j]) prod_{i<j} u[phi_i], phi the locations in ascending order of usage: [P].

    used: [P]. Equal usages are taken in the order of their locations: pairs of both are sorted, and sorted back.
    """
    free = 1 - (EPSILON + (1 - EPSILON) * used)
    descending = tl.where(location < N, ~in_order(free.to(tl.int32, bitcast=True)), 0x7FFFFFFF)
    pairs = tl.sort((descending.to(tl.int64) << 32) | location.to(tl.int64))
    order = pairs & 0xFFFFFFFF
    free = in_order(~(pairs >> 32).to(tl.int32)).to(tl.float32, bitcast=True)
    log_usage = tl.where(order < N, tl.log(1 - free), 0.0)
    shares = tl.where(order < N, free * tl.exp(tl.cumsum(log_usage, 0) - log_usage), 0.0)
    bits = shares.to(tl.int32, bitcast=True).to(tl.int64) & 0xFFFFFFFF
    return (tl.sort((order << 32) | bits) & 0xFFFFFFFF).to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def write(
    slots, stride, free_gates, allocation_gates, write_gates, write_keys, write_strengths, write_masks,
    erase_vectors, write_vectors, read_keys, read_strengths, read_masks,
    memory, usage, write_weights, read_weights,
    retention, allocations, write_contents, read_contents, scale,
    N, W: tl.constexpr, R: tl.constexpr, V: tl.constexpr,
    P: tl.constexpr, C: tl.constexpr, WP: tl.constexpr, RP: tl.constexpr, VP: tl.constexpr,
    MASKED: tl.constexpr, DEALLOCATED: tl.constexpr,
):  # fmt: skip
    """Find where to write, write there, and look up what the read heads seek in the memory as it is then.

    retention: [B, N]; allocations, write_contents: [B, V, N]; read_contents: [B, R, N]. scale: of the strengths.
    """
    row = tl.program_id(0).to(tl.int64)
    slot, controls = tl.load(slots + row).to(tl.int64), row * stride
    if slot < 0:
        return
    location = tl.arange(0, P)
    is_location = location < N
    memory += slot * N * W

    # The usage that the previous step left
    retained, unwritten = tl.full([P], 1.0, tl.float32), tl.full([P], 1.0, tl.float32)
    for head in tl.static_range(R):
        gate = tl.load(free_gates + controls + head)
        read_here = tl.load(read_weights + (slot * R + head) * N + location, mask=is_location, other=0.0)
        retained *= 1 - gate * read_here
    for head in tl.static_range(V):
        unwritten *= 1 - tl.load(write_weights + (slot * V + head) * N + location, mask=is_location, other=0.0)
    used = tl.load(usage + slot * N + location, mask=is_location, other=0.0)
    used = (used + (1 - used) * (1 - unwritten)) * retained
    tl.debug_barrier()
    tl.store(usage + slot * N + location, used, mask=is_location)
    tl.store(retention + row * N + location, retained, mask=is_location)

    # Locations of content that is alike
    products, squares = tl.zeros([P, VP], tl.float32), tl.zeros([P, VP], tl.float32)
    for start in range(0, W, C):
        words, _, _, column, is_column = columns(memory, start, location, is_location, W, C)
        of_columns = compare(words, write_keys + controls, write_masks + controls, column, is_column, V, VP, W, MASKED)
        products, squares = products + of_columns[0], squares + of_columns[1]
    content = content_weights(
        products, squares, write_keys + controls, write_masks + controls, write_strengths + controls, scale,
        is_location, V, VP, W, WP, MASKED,
    )  # fmt: skip

    # Free locations, or those: each head counts as used what the heads before it allocate
    weights = tl.zeros([P, VP], tl.float32)
    for head in tl.static_range(V):
        allocation_gate = tl.load(allocation_gates + controls + head)
        write_gate = tl.load(write_gates + controls + head)
        allocation, alike = allocation_weights(used, location, N), column_of(content, head, VP)
        written = write_gate * (alike + allocation_gate * (allocation - alike))
        used += (1 - used) * (allocation_gate * write_gate) * allocation
        weights += as_column(written, head, VP)
        of_head = (row * V + head) * N + location
        tl.store(allocations + of_head, allocation, mask=is_location)
        tl.store(write_contents + of_head, alike, mask=is_location)
        tl.store(write_weights + (slot * V + head) * N + location, written, mask=is_location)

    # Erase and add; and compare with the keys of the read heads
    products, squares = tl.zeros([P, RP], tl.float32), tl.zeros([P, RP], tl.float32)
    for start in range(0, W, C):
        words, place, is_number, column, is_column = columns(memory, start, location, is_location, W, C)
        if DEALLOCATED:
            words *= retained[:, None]
        added = tl.zeros([P, C], tl.float32)
        for head in tl.static_range(V):
            share = column_of(weights, head, VP)[:, None]
            erased = tl.load(erase_vectors + controls + head * W + column, mask=is_column, other=0.0)
            words *= 1 - share * erased[None, :]
            added += share * tl.load(write_vectors + controls + head * W + column, mask=is_column, other=0.0)[None, :]
        words += added
        tl.store(memory + place, words, mask=is_number)
        of_columns = compare(words, read_keys + controls, read_masks + controls, column, is_column, R, RP, W, MASKED)
        products, squares = products + of_columns[0], squares + of_columns[1]
    content = content_weights(
        products, squares, read_keys + controls, read_masks + controls, read_strengths + controls, scale,
        is_location, R, RP, W, WP, MASKED,
    )  # fmt: skip
    reader = tl.arange(0, RP)
    of_readers = (row * R + reader)[None, :] * N + location[:, None]
    tl.store(read_contents + of_readers, content, mask=is_location[:, None] & (reader < R)[None, :])


@triton.jit
def link(
    slots, links, precedence_weights, write_weights, read_weights, forward, backward_parts, tiles, parts,
    N, R: tl.constexpr, V: tl.constexpr, P: tl.constexpr, RP: tl.constexpr,
    TILE: tl.constexpr,
):  # fmt: skip
    """Update tiles times TILE rows of one link matrix, and take both of its products with what was read before.

    L[i, j] = (1 - w[i] - w[j]) L[i, j] + w[i] p[j], L[i, i] = 0. Each number of L is read once and written once.
    write_weights: of this step; read_weights, precedence_weights: of the previous one. forward: f = L w, [B, R, V, N].
    backward_parts: what these rows add to b = L^T w, [B, parts, R, V, N]; `mix` adds them up, in order.
    """
    row, head, part = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    slot = tl.load(slots + row).to(tl.int64)
    if slot < 0:
        return
    to, is_location = tl.arange(0, P), tl.arange(0, P) < N
    weights, written_to = (slot * V + head) * N, tl.arange(0, TILE)
    written = tl.load(write_weights + weights + to, mask=is_location, other=0.0)
    before = tl.load(precedence_weights + weights + to, mask=is_location, other=0.0)
    heads = tl.arange(0, RP)
    backward = tl.zeros([RP, P], tl.float32)
    for tile in range(tiles):
        location = (part * tiles + tile) * TILE + written_to
        is_row = location < N
        place = (weights + location)[:, None] * N + to[None, :]
        is_number = is_row[:, None] & is_location[None, :]
        values = tl.load(links + place, mask=is_number, other=0.0).to(tl.float32)
        here = tl.load(write_weights + weights + location, mask=is_row, other=0.0)
        values = (1 - here[:, None] - written[None, :]) * values + here[:, None] * before[None, :]
        values = tl.where(location[:, None] == to[None, :], 0.0, values)
        values = tl.where(is_number, values, 0.0)
        tl.store(links + place, values, mask=is_number)
        for reader in tl.static_range(R):
            read_here = read_weights + (slot * R + reader) * N
            ahead = tl.sum(values * tl.load(read_here + to, mask=is_location, other=0.0)[None, :], 1)
            behind = tl.sum(values * tl.load(read_here + location, mask=is_row, other=0.0)[:, None], 0)
            tl.store(forward + ((row * R + reader) * V + head) * N + location, ahead, mask=is_row)
            backward += tl.where(heads[:, None] == reader, behind[None, :], 0.0)
    sums = (((row * parts + part) * R + heads) * V + head)[:, None] * N + to[None, :]
    tl.store(backward_parts + sums, backward, mask=(heads < R)[:, None] & is_location[None, :])


@triton.jit
def sharpened(weights, sharpness, is_location):
    """Return (d + eps)^s / sum (d + eps)^s: [P]."""
    powers = tl.where(is_location, sharpness * tl.log(weights + EPSILON), float("-inf"))
    return softmax(powers)


@triton.jit
def mix(
    slots, stride, read_modes, forward_sharpness, backward_sharpness, read_weights,
    read_contents, forward, backward_parts, parts, backward,
    N, R: tl.constexpr, V: tl.constexpr, P: tl.constexpr, SHARPENED: tl.constexpr,
):  # fmt: skip
    """Mix the ways of one read head: by content, or backward or forward along the links.

    read_contents: [B, R, N]; forward, backward: [B, R, V, N]; backward_parts: of `link`.
    """
    row, reader = tl.program_id(0).to(tl.int64), tl.program_id(1)
    slot, controls = tl.load(slots + row).to(tl.int64), row * stride
    if slot < 0:
        return
    location = tl.arange(0, P)
    is_location = location < N
    modes, head_of_row = read_modes + controls + reader * (2 * V + 1), row * R + reader
    mixed = tl.load(modes + 2 * V) * tl.load(read_contents + head_of_row * N + location, mask=is_location, other=0.0)
    for head in tl.static_range(V):
        of_pair = (head_of_row * V + head) * N + location
        ahead = tl.load(forward + of_pair, mask=is_location, other=0.0)
        behind = tl.zeros([P], tl.float32)
        for part in range(parts):
            of_part = (((row * parts + part) * R + reader) * V + head) * N + location
            behind += tl.load(backward_parts + of_part, mask=is_location, other=0.0)
        if SHARPENED:
            pair = controls + reader * V + head
            ahead = sharpened(ahead, tl.load(forward_sharpness + pair), is_location)
            behind = sharpened(behind, tl.load(backward_sharpness + pair), is_location)
            tl.debug_barrier()
            tl.store(forward + of_pair, ahead, mask=is_location)
        tl.store(backward + of_pair, behind, mask=is_location)
        mixed += tl.load(modes + head) * behind + tl.load(modes + V + head) * ahead
    tl.store(read_weights + (slot * R + reader) * N + location, mixed, mask=is_location)


@triton.jit
def read(
    slots, memory, write_weights, precedence_weights, read_weights, read_vectors, read_contents,
    N, W: tl.constexpr, R: tl.constexpr, V: tl.constexpr,
    P: tl.constexpr, C: tl.constexpr, RP: tl.constexpr, LINKED: tl.constexpr,
):  # fmt: skip
    """Read by the weightings that `mix` left, or without links by those of content; then move the precedence on."""
    row = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + row).to(tl.int64)
    if slot < 0:
        return
    location, reader = tl.arange(0, P), tl.arange(0, RP)
    is_location = location < N
    is_weight = is_location[:, None] & (reader < R)[None, :]
    memory += slot * N * W

    of_heads = (slot * R + reader)[None, :] * N + location[:, None]
    if LINKED:
        weights = tl.load(read_weights + of_heads, mask=is_weight, other=0.0)
    else:
        of_row = (row * R + reader)[None, :] * N + location[:, None]
        weights = tl.load(read_contents + of_row, mask=is_weight, other=0.0)
        tl.store(read_weights + of_heads, weights, mask=is_weight)

    for start in range(0, W, C):
        words, _, _, column, is_column = columns(memory, start, location, is_location, W, C)
        for head in tl.static_range(R):
            vector = tl.sum(words * column_of(weights, head, RP)[:, None], 0)
            tl.store(read_vectors + (slot * R + head) * W + column, vector, mask=is_column)

    if LINKED:
        for head in tl.static_range(V):
            of_head = (slot * V + head) * N + location
            written = tl.load(write_weights + of_head, mask=is_location, other=0.0)
            before = tl.load(precedence_weights + of_head, mask=is_location, other=0.0)
            tl.debug_barrier()
            tl.store(precedence_weights + of_head, (1 - tl.sum(written, 0)) * before + written, mask=is_location)
