"""One pure function per equation of the memory: where the heads write and read.

Axes: B batch, N memory locations, W word size, R read heads, V write heads, H heads of either sort, S shift width.
A weighting is non-negative and sums to at most 1 over the N locations. Sources: [DNC] Graves et al., "Hybrid
computing using a neural network with dynamic external memory", Nature 538 (2016), Methods; [NTM] Graves, Wayne &
Danihelka, "Neural Turing Machines", arXiv 1410.5401; [C&S] Csordas & Schmidhuber, "Improving Differentiable Neural
Computers through memory masking, de-allocation, and link distribution sharpness control", ICLR 2019; [SDNC] Rae et al.,
"Scaling memory-augmented neural networks with sparse reads and writes", NIPS 2016; pytorch-ntm and ntm-lasagne: the
published code of that name.
"""

import functools
import math

import torch
from torch import Tensor

EPSILON = 1e-6
"""Keeps norms, the cosine and the logarithm of usage finite, in value and in gradient."""

SMALLEST_WEIGHT = 1e-8
"""Smaller weights are raised to this before they are sharpened, so that the logarithm is finite."""

TINY = 1e-12
"""Added below a root where the original adds nothing: too small to change a value, enough for a finite gradient."""


# Content


def norm(vectors: Tensor) -> Tensor:
    """Return sqrt(sum x^2 + eps) over the last axis: [..., W] -> [...]; its gradient is finite at zero."""
    return torch.sqrt(vectors.square().sum(-1) + EPSILON)


def cosine_similarity(memory: Tensor, keys: Tensor) -> Tensor:
    """Return D(k, M[n]) = k . M[n] / (|k| |M[n]| + eps).

    memory: [B, N, W]; keys: [B, H, W]. Returns [B, H, N], in [-1, 1].
    """
    products = keys @ memory.transpose(1, 2)
    norms = norm(keys).unsqueeze(2) * norm(memory).unsqueeze(1)
    return products / (norms + EPSILON)


def masked_cosine_similarity(memory: Tensor, keys: Tensor, masks: Tensor) -> Tensor:
    """Return D(m k, m M[n]): each key is compared only where its mask is not 0. [C&S] masked content-based addressing.

    memory: [B, N, W]; keys: [B, H, W]; masks: [B, H, W], in [0, 1]. Returns [B, H, N], in [-1, 1].
    """
    squares = masks.square()
    products = (keys * squares) @ memory.transpose(1, 2)
    memory_norms = torch.sqrt(squares @ memory.square().transpose(1, 2) + EPSILON)
    return products / (norm(keys * masks).unsqueeze(2) * memory_norms + EPSILON)


def tight_cosine_similarity(memory: Tensor, keys: Tensor) -> Tensor:
    """Return k . M[n] / (|k| |M[n]|), as pytorch-ntm has it, but with a finite gradient at zero.

    memory: [B, N, W]; keys: [B, H, W]. Returns [B, H, N], in [-1, 1].
    """
    key_norms = torch.sqrt(keys.square().sum(2) + TINY).unsqueeze(2)
    memory_norms = torch.sqrt(memory.square().sum(2) + TINY).unsqueeze(1)
    return keys @ memory.transpose(1, 2) / (key_norms * memory_norms)


def joint_cosine_similarity(memory: Tensor, keys: Tensor) -> Tensor:
    """Return k . M[n] / sqrt(|k|^2 |M[n]|^2 + eps), as ntm-lasagne has it.

    memory: [B, N, W]; keys: [B, H, W]. Returns [B, H, N], in [-1, 1].
    """
    squares = keys.square().sum(2).unsqueeze(2) * memory.square().sum(2).unsqueeze(1)
    return keys @ memory.transpose(1, 2) / torch.sqrt(squares + EPSILON)


def content_weights(similarities: Tensor, strengths: Tensor) -> Tensor:
    """Return the content-based weighting, softmax over n of beta D(k, M[n]). [NTM] eq. 5, [DNC] C(M, k, beta).

    similarities: [B, H, N]; strengths: [B, H], not negative. Returns [B, H, N], rows sum to 1.
    """
    return torch.softmax(strengths.unsqueeze(2) * similarities, dim=2)


def scaled_strengths(strengths: Tensor, similarities: Tensor, trained: int) -> Tensor:
    """Return beta log(1 + N) / log(1 + N'), for a memory of N locations and a network that was trained with N'.

    Of more locations a softmax gives each less, so that a key finds its word less surely; a strength that grows with
    log N makes up for it (Chiang & Cholak 2022, arXiv 2202.12172, of attention). With N' locations it is beta itself.

    strengths: [B, H]; similarities: [B, H, N], of any values; trained: N'.
    """
    size = torch.ones_like(similarities[0, 0]).sum()
    return strengths * (torch.log1p(size) / torch.log1p(torch.full_like(size, trained)))


# Writing and reading, the same for DNC and NTM


def product_over_heads(factors: Tensor) -> Tensor:
    """Return the product over axis 1: [B, H, ...] -> [B, ...].

    The gradient of torch.prod reads on the host how many factors are zero, and so waits for a GPU in each step.
    """
    return functools.reduce(torch.mul, factors.unbind(1))


def write(memory: Tensor, weights: Tensor, erase_vectors: Tensor, write_vectors: Tensor) -> Tensor:
    """Return M * prod_v (1 - w_v e_v^T) + sum_v w_v a_v^T: all heads erase, then all add. [NTM] eqs. 3-4.

    memory: [B, N, W]; weights: [B, V, N]; erase_vectors, in [0, 1], and write_vectors: [B, V, W].
    """
    kept = product_over_heads(1 - weights.unsqueeze(3) * erase_vectors.unsqueeze(2))
    return memory * kept + weights.transpose(1, 2) @ write_vectors


def read(memory: Tensor, weights: Tensor) -> Tensor:
    """Return the read vectors sum_n w[n] M[n]. [NTM] eq. 2. memory: [B, N, W]; weights: [B, R, N] -> [B, R, W]."""
    return weights @ memory


# DNC: dynamic allocation


def retention(free_gates: Tensor, read_weights: Tensor) -> Tensor:
    """Return the retention of each location: psi = prod_r (1 - f_r w_r), with the weightings of the previous step.

    free_gates: [B, R], in [0, 1]; read_weights: [B, R, N]. Returns [B, N], in [0, 1].
    """
    return product_over_heads(1 - free_gates.unsqueeze(2) * read_weights)


def usage(previous_usage: Tensor, write_weights: Tensor, retention: Tensor) -> Tensor:
    """Return the usage of each location: u = (u + w - u w) psi, with w = 1 - prod_v (1 - w_v).

    previous_usage: [B, N], in [0, 1]; write_weights, of the previous step: [B, V, N]; retention: [B, N].
    Returns [B, N], in [0, 1].
    No gradient flows through the write weights, as in DeepMind's code: the usage is not smooth in them.
    """
    written = 1 - product_over_heads(1 - write_weights.detach())
    return (previous_usage + (1 - previous_usage) * written) * retention


def deallocate(memory: Tensor, retention: Tensor) -> Tensor:
    """Return the memory with freed locations emptied: M[n] psi[n]. [C&S] de-allocation.

    memory: [B, N, W]; retention: [B, N]. Returns [B, N, W].
    """
    return memory * retention.unsqueeze(2)


def allocation_weights(usage: Tensor) -> Tensor:
    """Return a[phi_j] = (1 - u[phi_j]) prod_{i<j} u[phi_i], phi the locations in ascending order of usage.

    Locations of equal usage are taken in the order of their numbers. usage: [B, N], in [0, 1]. Returns [B, N].
    The sort is by 1 - u, as in DeepMind's code: usages that differ by less than the rounding of 1 are equal. Usages
    that differ by about that much may be ordered otherwise by another implementation.
    """
    free, order = torch.sort(1 - (EPSILON + (1 - EPSILON) * usage), dim=1, descending=True, stable=True)
    # The exclusive product, as the exponential of a sum: a product over locations has no conversion to ONNX.
    log_usage = torch.log(1 - free)
    all_before_used = torch.exp(torch.cumsum(log_usage, dim=1) - log_usage)
    return torch.zeros_like(usage).scatter(1, order, free * all_before_used)


def write_allocation_weights(usage: Tensor, gates: Tensor) -> Tensor:
    """Return one allocation per write head; each head counts as used the locations that earlier heads will allocate.

    usage: [B, N]; gates: [B, V], allocation gate times write gate. Returns [B, V, N].
    """
    allocations = []
    for gate in gates.unbind(1):
        allocations.append(allocation_weights(usage))
        usage = usage + (1 - usage) * gate.unsqueeze(1) * allocations[-1]
    return torch.stack(allocations, dim=1)


def write_weights(content: Tensor, allocation: Tensor, allocation_gate: Tensor, write_gate: Tensor) -> Tensor:
    """Return g_w (g_a a + (1 - g_a) c). content, allocation: [B, V, N]; gates: [B, V], in [0, 1]."""
    return write_gate.unsqueeze(2) * torch.lerp(content, allocation, allocation_gate.unsqueeze(2))


# DNC: temporal links


def link(previous_link: Tensor, precedence_weights: Tensor, write_weights: Tensor) -> Tensor:
    """Return L[i, j] = (1 - w[i] - w[j]) L[i, j] + w[i] p[j], with L[i, i] = 0: was i written right after j?

    previous_link: [B, V, N, N]; precedence_weights, of the previous step, and write_weights: [B, V, N].
    Returns [B, V, N, N]; rows and columns sum to at most 1.
    """
    written_to = write_weights.unsqueeze(3)
    written_from = write_weights.unsqueeze(2)
    updated = (1 - written_to - written_from) * previous_link + written_to * precedence_weights.unsqueeze(2)
    size = write_weights.shape[2]
    return updated * (1 - torch.eye(size, dtype=updated.dtype, device=updated.device))


def precedence(previous: Tensor, write_weights: Tensor) -> Tensor:
    """Return p = (1 - sum_n w[n]) p + w: how far each location was the last one written. Both [B, V, N]."""
    return (1 - write_weights.sum(2, keepdim=True)) * previous + write_weights


def directional_weights(link: Tensor, read_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weightings one write after and one write before the last read: f = L w, b = L^T w.

    link: [B, V, N, N]; read_weights, of the previous step: [B, R, N]. Returns forward and backward, [B, R, V, N].
    """
    weights = read_weights.unsqueeze(1)
    forward = weights @ link.transpose(2, 3)
    backward = weights @ link
    return forward.transpose(1, 2), backward.transpose(1, 2)


def read_weights(content: Tensor, forward: Tensor, backward: Tensor, read_modes: Tensor) -> Tensor:
    """Return the read weightings, a mixture of the three modes: backward, forward and content.

    content: [B, R, N]; forward, backward: [B, R, V, N]; read_modes: [B, R, 2 V + 1], summing to 1, in the order
    backward for each write head, forward for each write head, content. Returns [B, R, N].
    """
    modes = torch.cat([backward, forward, content.unsqueeze(2)], dim=2)
    return (read_modes.unsqueeze(2) @ modes).squeeze(2)


def sharpen_direction(weights: Tensor, sharpness: Tensor) -> Tensor:
    """Return (d + eps)^s / sum (d + eps)^s: a weighting along the links, sharpened. [C&S] sharpness of links.

    weights: [B, R, V, N]; sharpness: [B, R, V], at least 1. Returns [B, R, V, N], rows sum to 1.
    """
    return torch.softmax(sharpness.unsqueeze(3) * torch.log(weights + EPSILON), dim=3)


# DNC: sparse temporal links. Row i of the link matrix is kept as its K largest entries and their columns.


def sparse_link(
    previous_link: Tensor, previous_columns: Tensor, precedence_weights: Tensor, write_weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the K largest entries in each row of `link`, and their columns. After [SDNC], appendix D.

    A row's new entries are chosen among its old ones and the K columns of most precedence: with K = N, these are all
    columns. Equal entries are taken in that order.
    previous_link: [B, V, N, K]; previous_columns: [B, V, N, K], whole numbers, distinct in a row;
    precedence_weights, of the previous step, and write_weights: [B, V, N]. Returns two [B, V, N, K].
    """
    size, kept = previous_link.shape[2:]
    rows = torch.arange(size, device=previous_link.device).unsqueeze(1)
    written_to = write_weights.unsqueeze(3)

    columns = as_columns(previous_columns, size)
    written_from, preceding = (take_columns(weights, columns) for weights in (write_weights, precedence_weights))
    updated = (1 - written_to - written_from) * previous_link + written_to * preceding

    latest = torch.sort(precedence_weights, dim=2, descending=True, stable=True)[1][:, :, :kept]
    new_columns = latest.unsqueeze(2).expand_as(columns)
    new = written_to * precedence_weights.gather(2, latest).unsqueeze(2)
    known = (new_columns.unsqueeze(4) == columns.unsqueeze(3)).any(4)

    candidates = torch.cat([updated * (columns != rows), torch.where(known, -1, new * (new_columns != rows))], 3)
    link, order = torch.sort(candidates, dim=3, descending=True, stable=True)
    order = order[..., :kept]
    chosen = torch.cat([columns, new_columns], 3).gather(3, order)
    return link[..., :kept].contiguous(), chosen.to(previous_columns.dtype)


def as_columns(values: Tensor, memory_size: int) -> Tensor:
    """Return a state's column numbers as integers from 0 to memory_size - 1; NaN counts as 0."""
    return values.nan_to_num().clamp(0, memory_size - 1).round().long()


def take_columns(weights: Tensor, columns: Tensor) -> Tensor:
    """Return w[columns[n, k]]: [..., N] and [..., N, K] -> [..., N, K]."""
    return torch.unflatten(weights.gather(-1, columns.flatten(-2)), -1, (-1, columns.shape[-1]))


def sparse_directional_weights(link: Tensor, columns: Tensor, read_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return f = L w and b = L^T w of a sparse link matrix.

    link, columns: [B, V, N, K]; read_weights, of the previous step: [B, R, N]. Returns two [B, R, V, N].
    """
    shape = (-1, read_weights.shape[1], -1, -1, -1)
    columns = as_columns(columns, read_weights.shape[2]).unsqueeze(1).expand(shape)
    weights = read_weights.unsqueeze(2).expand(-1, -1, link.shape[1], -1)
    forward = (link.unsqueeze(1) * take_columns(weights, columns)).sum(4)
    backward = (link.unsqueeze(1) * weights.unsqueeze(4)).flatten(3)
    return forward, torch.zeros_like(forward).scatter_add(3, columns.flatten(3), backward)


# NTM: addressing by location


def interpolate(content: Tensor, previous: Tensor, gate: Tensor) -> Tensor:
    """Return g w_c + (1 - g) w_{t-1}. [NTM] eq. 7. content, previous: [B, H, N]; gate: [B, H], in [0, 1]."""
    return torch.lerp(previous, content, gate.unsqueeze(2))


def circular_shift(weights: Tensor, shift_weights: Tensor) -> Tensor:
    """Return w[i] = sum_j w[i - j] s[j], indices modulo N. [NTM] eq. 8.

    weights: [B, H, N]; shift_weights: [B, H, S], summing to 1, S odd; entry k moves the focus by k - (S - 1) / 2.
    """
    half = shift_weights.shape[2] // 2
    moved = [torch.roll(weights, offset, dims=2) for offset in range(-half, half + 1)]
    return (shift_weights.unsqueeze(2) @ torch.stack(moved, dim=2)).squeeze(2)


def sharpen(weights: Tensor, sharpening: Tensor) -> Tensor:
    """Return w^gamma / sum w^gamma, as a softmax, which no gamma can overflow. [NTM] eq. 9.

    weights: [B, H, N]; sharpening (gamma): [B, H], at least 1.
    """
    return torch.softmax(sharpening.unsqueeze(2) * torch.log(weights.clamp(min=SMALLEST_WEIGHT)), dim=2)


def flat_shift(weights: Tensor, shift_weights: Tensor) -> Tensor:
    """Return w[i] = sum_j w[i - j] s[j], with zeros beyond both ends, as ntm-lasagne has it.

    weights: [B, H, N]; shift_weights: [B, H, S], summing to 1, S odd; entry k moves the focus by k - (S - 1) / 2.
    """
    size, width = weights.shape[2], shift_weights.shape[2]
    padded = torch.nn.functional.pad(weights, (width // 2, width // 2))
    moved = [padded.narrow(2, start, size) for start in reversed(range(width))]
    return (shift_weights.unsqueeze(2) @ torch.stack(moved, dim=2)).squeeze(2)


def sharpen_below_one(weights: Tensor, sharpening: Tensor) -> Tensor:
    """Return w^gamma / (sum w^gamma + 1e-16), as pytorch-ntm has it: tiny weights sum to less than 1.

    weights: [B, H, N]; sharpening (gamma): [B, H], at least 1.
    """
    powers = sharpening.unsqueeze(2) * torch.log(weights.clamp(min=1e-30))
    below = torch.full_like(powers[:, :, :1], math.log(1e-16))
    return torch.softmax(torch.cat([below, powers], 2), dim=2)[:, :, 1:]


def sharpen_raised(weights: Tensor, sharpening: Tensor) -> Tensor:
    """Return (w + eps)^gamma / sum (w + eps)^gamma, as ntm-lasagne has it.

    weights: [B, H, N]; sharpening (gamma): [B, H], at least 1.
    """
    return torch.softmax(sharpening.unsqueeze(2) * torch.log(weights + EPSILON), dim=2)


def oneplus(values: Tensor) -> Tensor:
    """Return 1 + log(1 + e^x), at least 1, without overflow. [DNC]"""
    return 1 + torch.nn.functional.softplus(values)
