"""Situations made by hand for the published variants of DNC and NTM, one function at a time."""

import math

import numpy as np
import pytest
import torch

from models import addressing
from tests.models.test_addressing import assert_near, one_hot, random_weightings, tensor

SIMILARITIES = [addressing.cosine_similarity, addressing.tight_cosine_similarity, addressing.joint_cosine_similarity]


def as_matrix(link, columns):
    """Return sparse links as the whole matrices: [B, V, N, K] -> [B, V, N, N]."""
    return link.new_zeros(*link.shape[:3], link.shape[2]).scatter(3, columns.long(), link)


# Content, masked


def test_masked_cosine_ignores_differences_behind_the_mask():
    memory, masks = tensor([[1, 2, 7], [1, 2, -9]]), tensor([[1, 1, 0]])
    cosines = addressing.masked_cosine_similarity(memory, tensor([[3, 1, 5]]), masks)
    assert_near(cosines, np.full((1, 1, 2), 5 / math.sqrt(10 * 5)), atol=1e-6)


def test_masked_cosine_of_the_key_under_its_mask_is_1():
    memory, masks = tensor([[1, 2, -70], [1, 2.5, 5]]), tensor([[1, 1, 0]])
    cosines = addressing.masked_cosine_similarity(memory, tensor([[1, 2, 5]]), masks)[0, 0]
    assert cosines[0].item() == pytest.approx(1, abs=1e-6)
    assert cosines[1] < 0.999
    assert addressing.cosine_similarity(memory, tensor([[1, 2, 5]]))[0, 0].argmax() == 1


def test_masked_cosine_of_whole_masks_is_the_cosine():
    memory, keys = torch.randn(2, 5, 3, dtype=torch.float64), torch.randn(2, 4, 3, dtype=torch.float64)
    masked = addressing.masked_cosine_similarity(memory, keys, torch.ones_like(keys))
    assert_near(masked, addressing.cosine_similarity(memory, keys))


def test_masked_cosine_gives_each_key_its_own_mask():
    memory, keys = tensor([[1, 0], [0, 1]]), tensor([[1, 1], [1, 1]])
    cosines = addressing.masked_cosine_similarity(memory, keys, tensor([[1, 0], [0, 1]]))
    assert_near(cosines, one_hot(2, 0, 1), atol=1e-5)


def test_masked_cosine_agrees_with_loops():
    memory, keys = torch.randn(2, 5, 3, dtype=torch.float64), torch.randn(2, 4, 3, dtype=torch.float64)
    masks, expected = torch.rand(2, 4, 3, dtype=torch.float64), np.zeros((2, 4, 5))
    for b, h, n in np.ndindex(2, 4, 5):
        m, k = (memory[b, n] * masks[b, h]).tolist(), (keys[b, h] * masks[b, h]).tolist()
        lengths = math.sqrt(sum(x * x for x in k) + 1e-6) * math.sqrt(sum(x * x for x in m) + 1e-6)
        expected[b, h, n] = sum(x * y for x, y in zip(k, m, strict=True)) / (lengths + 1e-6)
    assert_near(addressing.masked_cosine_similarity(memory, keys, masks), expected)


def test_masked_cosine_of_a_zero_mask_has_finite_gradients():
    arguments = [torch.randn(1, 4, 3), torch.randn(1, 2, 3), torch.zeros(1, 2, 3)]
    arguments = [argument.requires_grad_() for argument in arguments]
    cosines = addressing.masked_cosine_similarity(*arguments)
    cosines.sum().backward()
    assert torch.equal(cosines, torch.zeros(1, 2, 4))
    assert all(argument.grad.isfinite().all() for argument in arguments)


# Content, of other implementations


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_similarity_of_parallel_orthogonal_opposite_vectors(similarity):
    memory = tensor([[2, 0], [0, 3], [-5, 0], [1, 1]])
    assert_near(similarity(memory, tensor([[10, 0]])), [[[1, 0, -1, math.sqrt(0.5)]]], atol=1e-6)


@pytest.mark.parametrize(
    ("similarity", "below"),
    [
        (addressing.tight_cosine_similarity, lambda k, m: math.sqrt(k + 1e-12) * math.sqrt(m + 1e-12)),
        (addressing.joint_cosine_similarity, lambda k, m: math.sqrt(k * m + 1e-6)),
    ],
)
@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-6])
def test_similarity_agrees_with_loops_where_its_constant_shows(similarity, below, scale):
    memory, keys = scale * torch.randn(2, 5, 3, dtype=torch.float64), torch.randn(2, 4, 3, dtype=torch.float64)
    expected = np.zeros((2, 4, 5))
    for b, h, n in np.ndindex(2, 4, 5):
        m, k = memory[b, n].tolist(), keys[b, h].tolist()
        product = sum(x * y for x, y in zip(k, m, strict=True))
        expected[b, h, n] = product / below(sum(x * x for x in k), sum(x * x for x in m))
    assert_near(similarity(memory, keys), expected)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_similarity_to_zeros_is_zero_with_finite_gradients(similarity):
    memory, keys = torch.zeros(1, 4, 3, requires_grad=True), torch.zeros(1, 2, 3, requires_grad=True)
    similarities = similarity(memory, keys)
    similarities.sum().backward()
    assert torch.equal(similarities, torch.zeros(1, 2, 4))
    assert memory.grad.isfinite().all()
    assert keys.grad.isfinite().all()


# De-allocation


def test_retention_is_the_product_over_heads():
    reads = tensor([[1, 0, 0.5], [0, 0, 0.5]])
    assert_near(addressing.retention(tensor([1, 0.5]), reads), [[0, 1, 0.5 * 0.75]])


def test_retention_agrees_with_loops():
    gates, reads = torch.rand(2, 3, dtype=torch.float64), random_weightings(2, 3, 4)
    expected = np.ones((2, 4))
    for b, r, n in np.ndindex(2, 3, 4):
        expected[b, n] *= 1 - gates[b, r].item() * reads[b, r, n].item()
    assert_near(addressing.retention(gates, reads), expected)


def test_deallocation_empties_freed_locations_only():
    memory = torch.randn(1, 3, 2, dtype=torch.float64)
    freed = addressing.deallocate(memory, tensor([1, 0, 0.5]))
    assert_near(freed, torch.stack([memory[0, 0], torch.zeros(2), memory[0, 2] / 2]).unsqueeze(0))


# Sharper links


def test_sharpness_1_normalizes_a_direction():
    sharpened = addressing.sharpen_direction(tensor([[[0.1, 0.3, 0]]]), tensor([[1]]))
    assert_near(sharpened, [[[[0.25, 0.75, 0]]]], atol=1e-5)


def test_sharpness_of_much_leaves_the_greatest_of_a_direction_alone():
    sharpened = addressing.sharpen_direction(tensor([[[0.1, 0.11, 0.02]]]), tensor([[1000]]))
    assert_near(sharpened, [[[[0, 1, 0]]]])


def test_sharpness_of_no_links_is_uniform_with_finite_gradients():
    weights = torch.zeros(1, 1, 1, 4, requires_grad=True)
    sharpened = addressing.sharpen_direction(weights, torch.full((1, 1, 1), 50.0))
    sharpened[0, 0, 0, 1].backward()
    assert_near(sharpened.detach(), np.full((1, 1, 1, 4), 0.25), atol=1e-6)
    assert weights.grad.isfinite().all()


def test_sharpness_of_each_head_and_direction_agrees_with_loops():
    weights, sharpness = random_weightings(2, 3, 2, 4), 1 + 3 * torch.rand(2, 3, 2, dtype=torch.float64)
    expected = np.zeros((2, 3, 2, 4))
    for b, r, v in np.ndindex(2, 3, 2):
        powers = [(weight + 1e-6) ** sharpness[b, r, v].item() for weight in weights[b, r, v].tolist()]
        expected[b, r, v] = [power / sum(powers) for power in powers]
    assert_near(addressing.sharpen_direction(weights, sharpness), expected)


# Sparse links


def sparsely_written_in_order(slots, kept, *order):
    """Return link and columns, as whole numbers by row, after full writes to the locations in `order` by one head."""
    link, precedence = torch.zeros(1, 1, slots, kept, dtype=torch.float64), torch.zeros(1, 1, slots).double()
    columns = torch.arange(kept).double().expand(1, 1, slots, kept)
    for slot in order:
        weights = one_hot(slots, slot)
        link, columns = addressing.sparse_link(link, columns, precedence, weights)
        precedence = addressing.precedence(precedence, weights)
    return link, columns


@pytest.mark.parametrize("kept", [1, 2, 4])
def test_sparse_link_after_writing_0_then_3_leads_there(kept):
    link, columns = sparsely_written_in_order(4, kept, 0, 3)
    assert (link[0, 0, 3, 0].item(), columns[0, 0, 3, 0].item()) == (1, 0)
    assert link.sum() == 1


def test_sparse_links_of_one_entry_walk_a_whole_sequence():
    link, columns = sparsely_written_in_order(6, 1, 4, 1, 5, 0, 3)
    found = {row: int(columns[0, 0, row, 0]) for row in range(6) if link[0, 0, row, 0] == 1}
    assert found == {1: 4, 5: 1, 0: 5, 3: 0}


def one_row(entries, columns, precedence, weights, row=0):
    """Return the entries and columns of one row, by its old ones; all other rows are empty."""
    link, kept = torch.zeros(1, 1, len(weights), len(entries), dtype=torch.float64), len(entries)
    all_columns = torch.arange(kept).double().repeat(1, 1, len(weights), 1)
    link[0, 0, row], all_columns[0, 0, row] = torch.tensor(entries), torch.tensor(columns)
    link, columns = addressing.sparse_link(link, all_columns, tensor([precedence]), tensor([weights]))
    return link[0, 0, row].tolist(), columns[0, 0, row].tolist()


def test_sparse_link_stronger_and_newer_replaces_the_old_one():
    link, columns = one_row([0.3], [1.0], precedence=[0, 0, 0.9], weights=[0.5, 0, 0])
    assert (link, columns) == ([pytest.approx(0.5 * 0.9)], [2])


def test_sparse_link_weaker_and_newer_leaves_the_old_one():
    link, columns = one_row([0.3], [1.0], precedence=[0, 0, 0.2], weights=[0.5, 0, 0])
    assert (link, columns) == ([pytest.approx(0.5 * 0.3)], [1])


def test_sparse_link_of_the_same_strength_leaves_the_old_one():
    assert one_row([0.5], [1.0], precedence=[0, 0, 0.5], weights=[0.5, 0, 0]) == ([0.25], [1])


def test_sparse_links_of_equal_strength_keep_their_columns_order():
    assert one_row([0.25, 0.25], [3.0, 1.0], [0, 0, 0, 0], [0, 0, 0, 0]) == ([0.25, 0.25], [3, 1])
    assert one_row([0.0, 0.0], [0.0, 4.0], [0, 0.5, 0.5, 0.5, 0], [0.5, 0, 0, 0, 0]) == ([0.25, 0.25], [1, 2])


def test_sparse_link_to_a_known_column_is_strengthened_once():
    link, columns = one_row([0.2, 0.1], [2.0, 1.0], precedence=[0, 0, 0.6, 0], weights=[0.5, 0, 0.1, 0])
    assert columns == [2, 1]
    assert link == pytest.approx([(1 - 0.5 - 0.1) * 0.2 + 0.5 * 0.6, 0.5 * 0.1])


def test_sparse_links_are_kept_in_falling_order():
    link, columns = one_row([0.1, 0.4], [1.0, 2.0], [0, 0, 0, 0.5], weights=[0.5, 0, 0, 0])
    assert (link, columns) == ([pytest.approx(0.25), pytest.approx(0.2)], [3, 2])


@pytest.mark.parametrize("column", [0.0, 2.0])
def test_sparse_link_of_a_location_to_itself_stays_zero(column):
    link, _ = one_row([0.0], [column], precedence=[1, 0, 0], weights=[1, 0, 0])
    assert link == [0]


def test_sparse_links_of_every_column_equal_dense_links():
    link, sparse, columns = torch.zeros(2, 3, 5, 5), torch.zeros(2, 3, 5, 5), torch.arange(5.0).expand(2, 3, 5, 5)
    link, sparse, precedence = link.double(), sparse.double(), torch.zeros(2, 3, 5, dtype=torch.float64)
    for _ in range(8):
        weights = random_weightings(2, 3, 5)
        link = addressing.link(link, precedence, weights)
        sparse, columns = addressing.sparse_link(sparse, columns, precedence, weights)
        precedence = addressing.precedence(precedence, weights)
        assert_near(as_matrix(sparse, columns), link)


def test_sparse_links_of_ties_keep_their_columns_order():
    """An unstable sort shows only beyond the sizes that are sorted by insertion."""
    precedence, weights = [0.0] * 200 + [0.001] * 300, [0.0] * 500
    entries, columns = [0.0] * 100, [float(column) for column in range(100)]
    assert one_row(entries, columns, precedence, weights) == (entries, columns)
    _, chosen = one_row(entries, columns, precedence, [0.5, *weights[1:]])
    assert chosen == [float(column) for column in range(200, 300)]


def test_sparse_links_of_rounded_columns_stay_valid():
    link, columns = sparsely_written_in_order(5, 2, 3, 1, 4)
    reads, weights = random_weightings(1, 2, 5), random_weightings(1, 1, 5)
    for moved in (columns - 1e-3, columns + 1e-3):
        assert_near(
            torch.stack(addressing.sparse_directional_weights(link, moved, reads)),
            torch.stack(addressing.sparse_directional_weights(link, columns, reads)),
        )
        assert_near(
            addressing.sparse_link(link, moved, weights, weights)[0],
            addressing.sparse_link(link, columns, weights, weights)[0],
        )


def test_columns_taken_are_those_of_each_row():
    taken = addressing.take_columns(tensor([10, 20, 30]), torch.tensor([[[2, 0], [1, 1], [0, 2]]]))
    assert taken.tolist() == [[[30, 10], [20, 20], [10, 30]]]


def test_sparse_directions_after_two_writes_lead_forward_and_back():
    link, columns = sparsely_written_in_order(4, 2, 0, 3)
    forward, backward = addressing.sparse_directional_weights(link, columns, one_hot(4, 0, 3))
    assert_near(forward[0, :, 0], [[0, 0, 0, 1], [0, 0, 0, 0]])
    assert_near(backward[0, :, 0], [[0, 0, 0, 0], [1, 0, 0, 0]])


def test_sparse_directions_of_several_heads_agree_with_loops():
    link, reads = torch.rand(2, 3, 5, 2, dtype=torch.float64), random_weightings(2, 4, 5)
    columns = torch.stack([torch.randperm(5)[:2] for _ in range(30)]).view(2, 3, 5, 2).double()
    expected = np.zeros((2, 2, 4, 3, 5))
    for b, r, v, i, k in np.ndindex(2, 4, 3, 5, 2):
        j = int(columns[b, v, i, k])
        expected[0, b, r, v, i] += link[b, v, i, k].item() * reads[b, r, j].item()
        expected[1, b, r, v, j] += link[b, v, i, k].item() * reads[b, r, i].item()
    forward, backward = addressing.sparse_directional_weights(link, columns, reads)
    assert_near(forward, expected[0])
    assert_near(backward, expected[1])


# Location, of other implementations


@pytest.mark.parametrize("width", [1, 3, 5])
def test_flat_shift_by_each_offset_moves_the_focus_that_far(width):
    for entry, offset in enumerate(range(-(width // 2), width // 2 + 1)):
        shifted = addressing.flat_shift(one_hot(7, 3), one_hot(width, entry))
        assert_near(shifted, one_hot(7, 3 + offset))


@pytest.mark.parametrize(("start", "entry"), [(0, 0), (3, 2)])
def test_flat_shift_beyond_an_end_loses_the_focus(start, entry):
    assert_near(addressing.flat_shift(one_hot(4, start), one_hot(3, entry)), np.zeros((1, 1, 4)))


@pytest.mark.parametrize("slots", [1, 2, 3, 8])
@pytest.mark.parametrize("width", [1, 3, 5])
def test_flat_shift_agrees_with_loops(width, slots):
    weights, shifts = random_weightings(2, 3, slots), torch.rand(2, 3, width, dtype=torch.float64)
    expected = np.zeros((2, 3, slots))
    for b, h, i, k in np.ndindex(2, 3, slots, width):
        source = i - (k - width // 2)
        if source in range(slots):
            expected[b, h, i] += weights[b, h, source].item() * shifts[b, h, k].item()
    assert_near(addressing.flat_shift(weights, shifts), expected)


@pytest.mark.parametrize("sharpen", [addressing.sharpen_below_one, addressing.sharpen_raised])
def test_sharpening_of_any_kind_by_2_squares_and_normalizes(sharpen):
    assert_near(sharpen(tensor([[0.5, 0.3, 0.2]]), tensor([2])), np.array([[[25, 9, 4]]]) / 38, atol=1e-5)


@pytest.mark.parametrize("sharpen", [addressing.sharpen_below_one, addressing.sharpen_raised])
def test_sharpening_of_any_kind_of_nothing_has_finite_gradients(sharpen):
    weights, gamma = torch.zeros(1, 1, 4, requires_grad=True), torch.tensor([[50.0]], requires_grad=True)
    sharpen(weights, gamma)[0, 0, 2].backward()
    assert weights.grad.isfinite().all()
    assert gamma.grad.isfinite().all()


@pytest.mark.parametrize(("weight", "left"), [(1e-4, 2 / 3), (1e-9, 0), (0, 0)])
def test_sharpening_below_one_of_tiny_weights_sums_below_1(weight, left):
    """Two weights of 1e-4, raised to the fourth, sum to 2e-16 / (2e-16 + 1e-16)."""
    sharpened = addressing.sharpen_below_one(tensor([[weight, weight]]), tensor([4]))
    assert_near(sharpened, [[[left / 2, left / 2]]], atol=1e-9)


def test_sharpening_raised_leaves_nothing_uniform():
    assert_near(addressing.sharpen_raised(tensor([[0, 0, 0, 0]]), tensor([7])), [[[0.25] * 4]])


@pytest.mark.parametrize(
    ("sharpen", "expected"),
    [
        (addressing.sharpen_below_one, lambda w, g: w**g / (sum(w**g) + 1e-16)),
        (addressing.sharpen_raised, lambda w, g: (w + 1e-6) ** g / sum((w + 1e-6) ** g)),
    ],
)
@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e-8])
def test_sharpening_of_each_style_agrees_with_loops(sharpen, expected, scale):
    weights, gammas = scale * random_weightings(2, 3, 5), 1 + 2 * torch.rand(2, 3, dtype=torch.float64)
    sharpened = sharpen(weights, gammas)
    for b, h in np.ndindex(2, 3):
        assert_near(sharpened[b, h], expected(weights[b, h].numpy(), gammas[b, h].item()))


@pytest.mark.parametrize("value", [-3.0, 99.0, float("nan"), float("inf")])
def test_columns_of_a_broken_state_are_columns_of_the_memory(value):
    columns = addressing.as_columns(tensor([0.0, value, 4.0]), 5)
    assert columns[0, [0, 2]].tolist() == [0, 4]
    assert 0 <= columns[0, 1] <= 4
