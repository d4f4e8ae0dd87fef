"""Situations made by hand, one function of the memory at a time."""

import itertools
import math

import numpy as np
import pytest
import torch

from models import addressing


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def one_hot(slots, *where):
    """Return a weighting of one row and one head per location given: [1, H, N]."""
    return torch.eye(slots, dtype=torch.float64)[list(where)].unsqueeze(0)


def random_weightings(*shape):
    """Return weightings that sum to less than 1 over the last axis."""
    return torch.softmax(torch.randn(*shape, dtype=torch.float64), -1) * torch.rand(*shape[:-1], 1, dtype=torch.float64)


def assert_near(actual, expected, atol=1e-12):
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=0, atol=atol)


def content(memory, keys, strengths):
    return addressing.content_weights(addressing.cosine_similarity(memory, keys), strengths)


def usage_after(previous_usage, write_weights, free_gates, read_weights):
    return addressing.usage(previous_usage, write_weights, addressing.retention(free_gates, read_weights))


# Content


def test_norm_of_a_vector_is_its_length():
    assert_near(addressing.norm(tensor([3, 4], [0, 2])), [5, 2], atol=1e-6)


def test_norm_at_zero_has_a_finite_gradient():
    zeros = torch.zeros(1, 4, requires_grad=True)
    addressing.norm(zeros).sum().backward()
    assert addressing.norm(zeros).item() == pytest.approx(1e-3)
    assert torch.equal(zeros.grad, torch.zeros(1, 4))


def test_cosine_of_parallel_orthogonal_opposite_vectors():
    memory = tensor([[2, 0], [0, 3], [-5, 0], [1, 1]])
    cosines = addressing.cosine_similarity(memory, tensor([[10, 0]]))
    assert_near(cosines, [[[1, 0, -1, math.sqrt(0.5)]]], atol=1e-6)


def test_cosine_agrees_with_three_loops():
    memory, keys = torch.randn(2, 5, 3, dtype=torch.float64), torch.randn(2, 4, 3, dtype=torch.float64)
    expected = np.zeros((2, 4, 5))
    for b, h, n in np.ndindex(2, 4, 5):
        m, k = memory[b, n].tolist(), keys[b, h].tolist()
        lengths = math.sqrt(sum(x * x for x in k) + 1e-6) * math.sqrt(sum(x * x for x in m) + 1e-6)
        expected[b, h, n] = sum(x * y for x, y in zip(k, m, strict=True)) / (lengths + 1e-6)
    assert_near(addressing.cosine_similarity(memory, keys), expected)


@pytest.mark.parametrize("strength", [0.0, 1.0, 1e4])
def test_content_of_zero_memory_is_uniform_with_finite_gradients(strength):
    memory, keys = torch.zeros(1, 4, 3, requires_grad=True), torch.randn(1, 2, 3, requires_grad=True)
    weights = content(memory, keys, torch.full((1, 2), strength))
    assert torch.equal(weights, torch.full((1, 2, 4), 0.25))
    weights[0, 0, 0].backward()
    assert memory.grad.isfinite().all()
    assert memory.grad.abs().max() <= 1000 * strength
    assert keys.grad.isfinite().all()


def test_content_of_a_zero_key_is_uniform_with_finite_gradients():
    keys = torch.zeros(1, 1, 3, requires_grad=True)
    weights = content(torch.randn(1, 4, 3), keys, torch.ones(1, 1))
    assert torch.equal(weights, torch.full((1, 1, 4), 0.25))
    weights[0, 0, 0].backward()
    assert keys.grad.isfinite().all()


def test_content_is_the_softmax_of_strength_times_cosine():
    memory, keys = torch.randn(1, 5, 3, dtype=torch.float64), torch.randn(1, 2, 3, dtype=torch.float64)
    cosines = addressing.cosine_similarity(memory, keys).numpy()
    expected = np.exp(cosines * np.array([[[0.5], [4.0]]]))
    actual = content(memory, keys, tensor([0.5, 4.0]))
    assert_near(actual, expected / expected.sum(2, keepdims=True))


@pytest.mark.parametrize(("locations", "factor"), [(7, 1), (63, 2), (1, 1 / 3), (12, math.log(13) / math.log(8))])
def test_scaled_strength_grows_with_the_logarithm_of_the_locations(locations, factor):
    strengths = tensor([0.5, 4.0])
    scaled = addressing.scaled_strengths(strengths, torch.full((1, 2, locations), math.nan), trained=7)
    assert_near(scaled, factor * strengths, atol=1e-6)
    assert factor != 1 or torch.equal(scaled, strengths)


def test_content_of_a_greater_strength_is_sharper():
    memory, key = torch.randn(1, 6, 3, dtype=torch.float64), torch.randn(1, 1, 3, dtype=torch.float64)
    peaks = [content(memory, key, tensor([beta])).max().item() for beta in (0.0, 1.0, 5.0, 50.0, 1e5)]
    assert peaks == sorted(peaks)
    assert peaks[0] == pytest.approx(1 / 6)
    assert peaks[-1] == pytest.approx(1)


def test_content_finds_the_location_of_the_key():
    memory = torch.randn(1, 6, 4, dtype=torch.float64)
    weights = content(memory, 3 * memory[:, [4, 1]], tensor([1000.0, 1000.0]))
    assert_near(weights, one_hot(6, 4, 1), atol=1e-6)


# Writing and reading


def test_write_with_full_erasure_replaces_one_location():
    memory = torch.randn(1, 3, 2, dtype=torch.float64)
    written = addressing.write(memory, one_hot(3, 1), tensor([[1, 1]]), tensor([[7, 8]]))
    assert_near(written, torch.stack([memory[0, 0], torch.tensor([7, 8]), memory[0, 2]]).unsqueeze(0))


def test_write_without_erasure_adds():
    memory = torch.randn(1, 3, 2, dtype=torch.float64)
    written = addressing.write(memory, 0.5 * one_hot(3, 1), tensor([[0, 0]]), tensor([[7, 8]]))
    assert_near(written - memory, [[[0, 0], [3.5, 4], [0, 0]]])


def test_write_erases_word_by_word():
    written = addressing.write(
        torch.ones(1, 2, 3), torch.tensor([[[1.0, 0.5]]]), torch.tensor([[[0, 0.5, 1]]]), torch.zeros(1, 1, 3)
    )
    assert_near(written, [[[1, 0.5, 0], [1, 0.75, 0.5]]])


def test_write_of_two_heads_erases_before_it_adds():
    weights, erase = one_hot(2, 0, 0), tensor([[1, 0], [0, 1]])
    written = addressing.write(tensor([[5, 5], [6, 6]]), weights, erase, tensor([[1, 2], [10, 20]]))
    assert_near(written, [[[11, 22], [6, 6]]])


def test_write_of_several_heads_agrees_with_loops():
    memory, weights = torch.randn(2, 4, 3, dtype=torch.float64), random_weightings(2, 3, 4)
    erase, add = torch.rand(2, 3, 3, dtype=torch.float64), torch.randn(2, 3, 3, dtype=torch.float64)
    expected = memory.numpy().copy()
    for b, n, w in np.ndindex(2, 4, 3):
        for v in range(3):
            expected[b, n, w] *= 1 - weights[b, v, n] * erase[b, v, w]
        for v in range(3):
            expected[b, n, w] += weights[b, v, n] * add[b, v, w]
    assert_near(addressing.write(memory, weights, erase, add), expected)


def test_read_of_one_location_returns_its_word():
    memory = torch.randn(1, 3, 2, dtype=torch.float64)
    assert_near(addressing.read(memory, one_hot(3, 2, 0)), memory[:, [2, 0]])


def test_read_of_several_locations_mixes_their_words():
    words = addressing.read(tensor([[1, 2], [10, 20]]), tensor([[0.5, 0.25], [0, 0]]))
    assert_near(words, [[[3, 6], [0, 0]]])


# Usage


def test_usage_of_a_location_just_written_is_full():
    usage = usage_after(tensor([0, 0.5, 0]), one_hot(3, 2), tensor([0]), one_hot(3, 0))
    assert_near(usage, [[0, 0.5, 1]])


def test_usage_of_a_freed_location_is_zero():
    usage = usage_after(tensor([1, 0.5, 1]), torch.zeros(1, 1, 3), tensor([1]), one_hot(3, 2))
    assert_near(usage, [[1, 0.5, 0]])


def test_usage_of_a_location_read_but_not_freed_is_kept():
    usage = usage_after(tensor([1, 0.5, 1]), torch.zeros(1, 1, 3), tensor([0]), one_hot(3, 2))
    assert_near(usage, [[1, 0.5, 1]])


def test_usage_read_twice_is_freed_by_each_head_in_proportion():
    reads = tensor([[1, 0], [0.5, 0.5]])
    usage = usage_after(tensor([1, 1]), torch.zeros(1, 1, 2), tensor([0.25, 0.5]), reads)
    assert_near(usage, [[0.75 * 0.75, 0.75]])


def test_usage_of_a_location_written_and_freed_is_zero():
    usage = usage_after(tensor([0, 0]), one_hot(2, 1), tensor([1]), one_hot(2, 1))
    assert_near(usage, [[0, 0]])


def test_usage_of_several_writes_agrees_with_loops():
    before, writes, reads = (
        torch.rand(2, 4, dtype=torch.float64),
        random_weightings(2, 3, 4),
        random_weightings(2, 2, 4),
    )
    gates = torch.rand(2, 2, dtype=torch.float64)
    expected = np.zeros((2, 4))
    for b, n in np.ndindex(2, 4):
        untouched, retention = 1.0, 1.0
        for v in range(3):
            untouched *= 1 - writes[b, v, n].item()
        for r in range(2):
            retention *= 1 - gates[b, r].item() * reads[b, r, n].item()
        w, u = 1 - untouched, before[b, n].item()
        expected[b, n] = (u + w - u * w) * retention
    assert_near(usage_after(before, writes, gates, reads), expected)


def test_usage_passes_no_gradient_to_the_write_weights_only():
    arguments = [tensor([0.2, 0.4]), tensor([[0.5, 0.1]]), tensor([0.5]), tensor([[0.3, 0.3]])]
    arguments = [argument.requires_grad_() for argument in arguments]
    usage_after(*arguments).sum().backward()
    assert [argument.grad is None for argument in arguments] == [False, True, False, False]


# Allocation


def allocate(*usage):
    return addressing.allocation_weights(tensor(usage))[0].tolist()


@pytest.mark.parametrize("free", range(4))
def test_allocation_with_one_free_location_goes_there(free):
    usage = [1.0] * 4
    usage[free] = 0.0
    assert_near(allocate(*usage), one_hot(4, free)[0, 0], atol=1e-5)


def test_allocation_in_a_full_memory_goes_nowhere():
    assert_near(allocate(1, 1, 1, 1), [0, 0, 0, 0])


@pytest.mark.parametrize("usage", [[0, 0, 0, 0], [1, 0, 0, 1], [0.5, 0, 0.5, 0]])
def test_allocation_among_equally_free_locations_goes_to_the_lowest(usage):
    assert_near(allocate(*usage), one_hot(4, usage.index(0))[0, 0], atol=1e-5)


def test_allocation_among_equally_used_locations_prefers_the_lowest():
    assert_near(allocate(0.5, 0.5, 0.5), [0.5, 0.25, 0.125], atol=1e-5)


def test_allocation_follows_the_order_of_usage_not_of_locations():
    assert_near(allocate(0.5, 0.9, 0.1), [0.5 * 0.1, 0.1 * 0.5 * 0.1, 0.9], atol=1e-5)


def test_allocation_of_ties_in_a_large_memory_is_lowest():
    """An unstable sort shows only beyond the sizes that are sorted by insertion."""
    usage = torch.ones(1, 500)
    usage[0, 100:] = 0.5
    assert addressing.allocation_weights(usage)[0, 100:103].tolist() == pytest.approx([0.5, 0.25, 0.125], abs=1e-4)


def test_allocation_agrees_with_a_loop_over_sorted_locations():
    usage = torch.rand(3, 7, dtype=torch.float64)
    usage[0, 2], usage[1, 4], usage[2, 1] = 0, 1, usage[2, 5]
    expected = np.zeros((3, 7))
    for b in range(3):
        u = [1e-6 + (1 - 1e-6) * value for value in usage[b].tolist()]
        before = 1.0
        for slot in sorted(range(7), key=lambda n: (u[n], n)):
            expected[b, slot] = (1 - u[slot]) * before
            before *= u[slot]
    assert_near(addressing.allocation_weights(usage), expected)


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_allocation_gradient_at_the_ends_of_usage_is_finite(level):
    usage = torch.full((1, 64), level, requires_grad=True)
    addressing.allocation_weights(usage)[0, 3].backward()
    assert usage.grad.isfinite().all()


def test_allocation_of_several_write_heads_goes_to_different_locations():
    allocations = addressing.write_allocation_weights(tensor([1, 0, 0.3, 0, 1]), tensor([1, 1, 1]))
    assert_near(allocations[:, :2], one_hot(5, 1, 3), atol=1e-5)
    assert_near(allocations[:, 2], [[0, 0, 0.7, 0, 0]], atol=1e-5)


def test_allocation_of_a_closed_head_leaves_the_location_free():
    allocations = addressing.write_allocation_weights(tensor([1, 0, 0.3]), tensor([0, 1]))
    assert_near(allocations, one_hot(3, 1, 1), atol=1e-5)


def test_allocation_of_a_half_open_head_raises_usage_by_half():
    allocations = addressing.write_allocation_weights(tensor([0.2, 0.5]), tensor([0.5, 1]))
    first = addressing.allocation_weights(tensor([0.2, 0.5]))
    raised = tensor([0.2, 0.5]) + tensor([0.8, 0.5]) * 0.5 * first
    assert_near(allocations[:, 0], first)
    assert_near(allocations[:, 1], addressing.allocation_weights(raised))


@pytest.mark.parametrize(
    ("allocation_gate", "write_gate", "expected"),
    [(1, 1, [1, 0]), (0, 1, [0, 1]), (0.25, 1, [0.25, 0.75]), (0.25, 0.5, [0.125, 0.375]), (1, 0, [0, 0])],
)
def test_write_weights_mix_allocation_and_content_by_their_gates(allocation_gate, write_gate, expected):
    weights = addressing.write_weights(one_hot(2, 1), one_hot(2, 0), tensor([allocation_gate]), tensor([write_gate]))
    assert_near(weights, [[expected]])


# Links


def written_in_order(slots, *order):
    """Return link and precedence after full writes to the locations in `order` by one head."""
    link, precedence = (
        torch.zeros(1, 1, slots, slots, dtype=torch.float64),
        torch.zeros(1, 1, slots, dtype=torch.float64),
    )
    for slot in order:
        weights = one_hot(slots, slot)
        link, precedence = addressing.link(link, precedence, weights), addressing.precedence(precedence, weights)
    return link, precedence


def test_link_after_writing_0_then_3_leads_there():
    link, _ = written_in_order(4, 0, 3)
    expected = np.zeros((4, 4))
    expected[3, 0] = 1
    assert_near(link[0, 0], expected)


def test_link_of_a_location_written_again_is_replaced():
    link, _ = written_in_order(4, 0, 3, 1, 3)
    expected = np.zeros((4, 4))
    expected[3, 1] = 1
    assert_near(link[0, 0], expected)


def test_link_of_a_location_to_itself_stays_zero():
    link, _ = written_in_order(3, 1, 1)
    assert_near(link, np.zeros((1, 1, 3, 3)))


def test_link_of_partial_writes_agrees_with_loops():
    previous = torch.rand(2, 2, 4, 4, dtype=torch.float64) / 4
    precedence, writes = random_weightings(2, 2, 4), random_weightings(2, 2, 4)
    expected = np.zeros((2, 2, 4, 4))
    for b, v, i, j in np.ndindex(2, 2, 4, 4):
        w, p = writes[b, v].tolist(), precedence[b, v].tolist()
        expected[b, v, i, j] = (1 - w[i] - w[j]) * previous[b, v, i, j].item() + w[i] * p[j] if i != j else 0
    assert_near(addressing.link(previous, precedence, writes), expected)


def test_links_of_two_write_heads_are_apart():
    link, precedence = torch.zeros(1, 2, 4, 4, dtype=torch.float64), one_hot(4, 0, 1)
    link = addressing.link(link, precedence, one_hot(4, 2, 3))
    assert link.nonzero().tolist() == [[0, 0, 2, 0], [0, 1, 3, 1]]


def test_precedence_after_a_full_write_is_that_write():
    _, precedence = written_in_order(4, 0, 3)
    assert_near(precedence, one_hot(4, 3))


def test_precedence_after_a_partial_write_keeps_the_rest():
    precedence = addressing.precedence(tensor([[0.5, 0.5, 0]]), tensor([[0, 0.1, 0.3]]))
    assert_near(precedence, [[[0.3, 0.4, 0.3]]])


def test_precedence_without_a_write_is_unchanged():
    before = random_weightings(1, 2, 4)
    assert_near(addressing.precedence(before, torch.zeros(1, 2, 4, dtype=torch.float64)), before)


def test_directions_after_two_writes_lead_forward_and_back():
    link, _ = written_in_order(4, 0, 3)
    forward, backward = addressing.directional_weights(link, one_hot(4, 0, 3))
    assert_near(forward[0, :, 0], [[0, 0, 0, 1], [0, 0, 0, 0]])
    assert_near(backward[0, :, 0], [[0, 0, 0, 0], [1, 0, 0, 0]])


def test_directions_walk_a_whole_sequence_there_and_back():
    order = [2, 0, 4, 1, 3]
    link, _ = written_in_order(5, *order)
    for earlier, later in itertools.pairwise(order):
        forward, _ = addressing.directional_weights(link, one_hot(5, earlier))
        _, backward = addressing.directional_weights(link, one_hot(5, later))
        assert_near(forward[:, :, 0], one_hot(5, later))
        assert_near(backward[:, :, 0], one_hot(5, earlier))


def test_directions_of_several_heads_agree_with_loops():
    link, reads = torch.rand(2, 3, 4, 4, dtype=torch.float64), random_weightings(2, 2, 4)
    expected = np.zeros((2, 2, 2, 3, 4))
    for b, r, v, i, j in np.ndindex(2, 2, 3, 4, 4):
        expected[0, b, r, v, i] += link[b, v, i, j].item() * reads[b, r, j].item()
        expected[1, b, r, v, i] += link[b, v, j, i].item() * reads[b, r, j].item()
    forward, backward = addressing.directional_weights(link, reads)
    assert_near(forward, expected[0])
    assert_near(backward, expected[1])


@pytest.mark.parametrize("mode", range(5))
def test_read_mode_of_each_way_reads_that_way(mode):
    """Modes: backward along the links of heads 0 and 1, forward along those of heads 0 and 1, by content."""
    backward, forward, content = one_hot(5, 0, 1).unsqueeze(1), one_hot(5, 2, 3).unsqueeze(1), one_hot(5, 4)
    weights = addressing.read_weights(content, forward, backward, one_hot(5, mode))
    assert_near(weights, one_hot(5, mode))


def test_read_modes_mix_the_ways():
    content, forward, backward = one_hot(3, 0, 0), one_hot(3, 1, 1).unsqueeze(2), one_hot(3, 2, 2).unsqueeze(2)
    modes = tensor([[0.2, 0.3, 0.5], [1, 0, 0]])
    assert_near(addressing.read_weights(content, forward, backward, modes), [[[0.5, 0.3, 0.2], [0, 0, 1]]])


# Location


@pytest.mark.parametrize(("gate", "expected"), [(0, [0, 1]), (1, [1, 0]), (0.25, [0.25, 0.75])])
def test_interpolation_mixes_content_and_the_previous_weighting(gate, expected):
    assert_near(addressing.interpolate(one_hot(2, 0), one_hot(2, 1), tensor([gate])), [[expected]])


@pytest.mark.parametrize("width", [1, 3, 5])
def test_shift_by_each_offset_moves_the_focus_that_far(width):
    for entry, offset in enumerate(range(-(width // 2), width // 2 + 1)):
        shifted = addressing.circular_shift(one_hot(7, 3), one_hot(width, entry))
        assert_near(shifted, one_hot(7, 3 + offset))


@pytest.mark.parametrize(("start", "entry", "end"), [(0, 0, 3), (3, 2, 0), (0, 2, 1), (3, 0, 2)])
def test_shift_beyond_an_end_comes_round(start, entry, end):
    assert_near(addressing.circular_shift(one_hot(4, start), one_hot(3, entry)), one_hot(4, end))


def test_shift_spread_over_offsets_blurs_the_focus():
    shifted = addressing.circular_shift(one_hot(5, 1), tensor([[0.2, 0.5, 0.3]]))
    assert_near(shifted, [[[0.2, 0.5, 0.3, 0, 0]]])


@pytest.mark.parametrize("slots", [1, 2, 3, 8])
@pytest.mark.parametrize("width", [1, 3, 5])
def test_shift_agrees_with_loops(width, slots):
    weights, shifts = random_weightings(2, 3, slots), torch.rand(2, 3, width, dtype=torch.float64)
    expected = np.zeros((2, 3, slots))
    for b, h, i, k in np.ndindex(2, 3, slots, width):
        expected[b, h, i] += weights[b, h, (i - (k - width // 2)) % slots].item() * shifts[b, h, k].item()
    assert_near(addressing.circular_shift(weights, shifts), expected)


def test_sharpening_by_1_changes_nothing():
    weights = torch.softmax(torch.randn(2, 3, 6, dtype=torch.float64), 2)
    assert_near(addressing.sharpen(weights, torch.ones(2, 3, dtype=torch.float64)), weights)


def test_sharpening_by_2_squares_and_normalizes():
    assert_near(addressing.sharpen(tensor([[0.5, 0.3, 0.2]]), tensor([2])), np.array([[[25, 9, 4]]]) / 38)


@pytest.mark.parametrize("gamma", [1.0, 20.0, 30.0, 1e4])
def test_sharpening_of_a_uniform_weighting_leaves_it_uniform(gamma):
    sharpened = addressing.sharpen(torch.full((1, 1, 128), 1 / 128), torch.tensor([[gamma]]))
    assert_near(sharpened, np.full((1, 1, 128), 1 / 128), atol=1e-7)


def test_sharpening_by_much_leaves_the_greatest_alone():
    assert_near(addressing.sharpen(tensor([[0.3, 0.4, 0.3]]), tensor([1000])), one_hot(3, 1))


def test_sharpening_of_a_single_location_has_finite_gradients():
    weights, gamma = one_hot(4, 2).requires_grad_(), tensor([50]).requires_grad_()
    addressing.sharpen(weights, gamma)[0, 0, 2].backward()
    assert weights.grad.isfinite().all()
    assert gamma.grad.isfinite().all()


@pytest.mark.parametrize(
    ("value", "expected"), [(0, 1 + math.log(2)), (1, 1 + math.log(1 + math.e)), (-2, 1 + math.log1p(math.exp(-2)))]
)
def test_oneplus_agrees_with_its_formula(value, expected):
    assert addressing.oneplus(tensor(value)).item() == pytest.approx(expected, abs=1e-12)


def test_oneplus_of_extremes_does_not_overflow():
    values = torch.tensor([-1e4, -100.0, 100.0, 1e4], requires_grad=True)
    result = addressing.oneplus(values)
    result.sum().backward()
    assert result.tolist() == [1, 1, 101, 10001]
    assert values.grad.tolist() == pytest.approx([0, 0, 1, 1], abs=1e-30)
