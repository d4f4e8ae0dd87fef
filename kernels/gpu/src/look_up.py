"""Parts of the kernels that DNC and NTM share: products of keys with the memory, and the look-up by content.

Axes of tiles: P, the memory locations N rounded up to a power of two; C, some columns of words; HP, heads rounded up.
"""

import triton
import triton.language as tl

EPSILON = tl.constexpr(1e-6)
"""As in models/addressing.py."""


@triton.jit
def column_of(values, number, HP: tl.constexpr):
    """Return one column of [P, HP] values: [P]."""
    return tl.sum(tl.where(tl.arange(0, HP)[None, :] == number, values, 0.0), 1)


@triton.jit
def as_column(values, number, HP: tl.constexpr):
    """Return [P, HP] zeros with `values`, [P], in one column."""
    return tl.where(tl.arange(0, HP)[None, :] == number, values[:, None], 0.0)


@triton.jit
def softmax(scores):
    """Return the softmax over the first axis."""
    powers = tl.exp(scores - tl.max(scores, 0))
    return powers / tl.sum(powers, 0)


@triton.jit
def columns(memory, start, location, is_location, W: tl.constexpr, C: tl.constexpr):
    """Return C columns of a memory from `start` on, [P, C], with their places and the mask of both, and their numbers.

    memory: of a session, [N, W]. The numbers of the columns, and their mask: [C].
    """
    column = start + tl.arange(0, C)
    is_column = column < W
    place, is_number = location[:, None] * W + column[None, :], is_location[:, None] & is_column[None, :]
    words = tl.load(memory + place, mask=is_number, other=0.0).to(tl.float32)
    return words, place, is_number, column, is_column


@triton.jit
def compare(
    words, keys, masks, column, is_column, H: tl.constexpr, HP: tl.constexpr, W: tl.constexpr, MASKED: tl.constexpr
):
    """Return what some columns of the memory add to k . M[n] and |M[n]|^2, of masked keys and words: [P, HP] each.

    words: [P, C]; keys, masks: the first of [H, W] of a row; column: [C], those of the words.
    """
    products = tl.zeros([words.shape[0], HP], tl.float32)
    squares = products
    if not MASKED:
        squares += tl.sum(words * words, 1)[:, None]
    for head in tl.static_range(H):
        key = tl.load(keys + head * W + column, mask=is_column, other=0.0)
        if MASKED:
            mask = tl.load(masks + head * W + column, mask=is_column, other=0.0)
            key = key * (mask * mask)
            squares += as_column(tl.sum(words * words * (mask * mask)[None, :], 1), head, HP)
        products += as_column(tl.sum(words * key[None, :], 1), head, HP)
    return products, squares


@triton.jit
def content_weights(
    products, squares, keys, masks, strengths, scale, is_location,
    H: tl.constexpr, HP: tl.constexpr, W: tl.constexpr, WP: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Return softmax over n of beta D(m k, m M[n]): [P, HP]. products, squares: of `compare`, over all columns.

    keys, masks: the first of [H, W] of a row; strengths: of [H]; is_location: [P].
    """
    head, column = tl.arange(0, HP), tl.arange(0, WP)
    place, is_number = head[:, None] * W + column[None, :], (head < H)[:, None] & (column < W)[None, :]
    key = tl.load(keys + place, mask=is_number, other=0.0)
    if MASKED:
        key *= tl.load(masks + place, mask=is_number, other=0.0)
    norms = tl.sqrt(tl.sum(key * key, 1) + EPSILON)[None, :] * tl.sqrt(squares + EPSILON)
    strength = scale * tl.load(strengths + head, mask=head < H, other=0.0)
    scores = tl.where(is_location[:, None], strength[None, :] * (products / (norms + EPSILON)), float("-inf"))
    return softmax(scores)
