"""The division of work: segments by the memory budget, rows among threads."""

import itertools

from kernels.plan import cuts, plan_segments


def test_sequence_that_fits_the_budget_is_one_segment():
    whole = plan_segments(10, 100, 7, 11 * 100 + 10 * 7)
    assert (whole.segments, whole.kept_bytes) == ([range(10)], 1170)


def test_longest_segments_that_fit_are_chosen():
    chosen = plan_segments(10, 100, 7, 1169)
    assert chosen.kept_bytes <= 1169
    assert chosen.segments == [range(7), range(7, 10)]
    assert chosen.kept_bytes == 3 * 100 + 8 * 100 + 7 * 7


def test_smallest_plan_is_chosen_where_none_fits():
    chosen = plan_segments(9, 100, 0, 1)
    assert chosen.kept_bytes == min(plan_segments(9, 100, 0, budget).kept_bytes for budget in range(0, 2000, 50))


def test_cuts_give_every_row_to_one_part():
    for rows in range(1, 9):
        for parts in range(1, rows + 1):
            ends = cuts(rows, parts)
            assert (ends[0], ends[-1], len(ends)) == (0, rows, parts + 1)
            assert all(end > start for start, end in itertools.pairwise(ends))
