"""Budgets, their leases, and their limits from the memory that there is."""

import pytest

from app.budget import budgets_of
from app.errors import AnswersFull, OutOfMemory, UploadsFull
from app.settings import Settings
from tests.app.budgets import budgets, states

GB = 2**30
MB = 2**20


def test_lease_is_refused_beyond_the_limit_unless_alone():
    answers = budgets(answers=100).answers
    first = answers.take(150)
    with pytest.raises(
        AnswersFull, match=r"150 bytes of answers .* and 1 more came; .* 100 \(setting max_answer_bytes"
    ):
        answers.take(1)
    first.release()
    with answers.take(60), answers.take(40):
        assert answers.used == 100
    assert answers.used == 0


def test_released_lease_holds_nothing_more_than_once():
    uploads = budgets(uploads=100).uploads
    with uploads.take(30) as lease:
        lease.resize(70)
        lease.resize(50)
        assert (lease.size, uploads.used) == (50, 50)
        with pytest.raises(UploadsFull):
            uploads.take(51)
        lease.release()
    assert uploads.used == 0


def test_states_are_refused_beyond_their_limit_also_alone():
    budget = states(100)
    assert [budget.try_add(101), budget.try_add(100), budget.try_add(1)] == [False, True, False]
    assert isinstance(budget.full(1), OutOfMemory)


def test_budgets_follow_the_memory_unless_set():
    small, large = budgets_of(Settings(), GB), budgets_of(Settings(), 64 * GB)
    assert [budget.limit for _, budget in small.items()] == [128 * MB, 128 * MB, 128 * MB, 256 * MB]
    assert [budget.limit for _, budget in large.items()] == [256 * MB, 256 * MB, 256 * MB, 16 * GB]
    own = Settings(max_queue_bytes=1, max_answer_bytes=2, max_upload_bytes=3, max_memory_bytes=4)
    assert {name: budget.limit for name, budget in budgets_of(own, GB).items()} == {
        "queue": 1,
        "answers": 2,
        "uploads": 3,
        "states": 4,
    }
