"""Memory of arrays returned to the system."""

import sys
from pathlib import Path

import numpy as np
import pytest

from app.backends.base import Slots, runs_of
from app.backends.pages import give_back

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="madvise of Linux")

MB = 2**20


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_pages_of_an_array_leave_memory():
    values = np.ones(64 * MB, np.uint8)
    before = resident()
    assert give_back(values[: 48 * MB]) >= 48 * MB - 2 * 4096
    assert before - resident() > 40 * MB
    assert values[48 * MB :].all()
    values[: 48 * MB] = 2
    assert (values[: 48 * MB] == 2).all()


def test_array_within_a_page_or_with_gaps_stays():
    values = np.ones((64, 4096), np.float32)
    assert give_back(values[0, :100]) == give_back(values[:, :8]) == 0
    assert values.all()


def test_slots_between_others_are_cooled_alone():
    leaf, slots = np.zeros((8, MB), np.uint8), Slots(8)
    opened = [slots.take(lambda _: None) for _ in range(8)]
    leaf[:] = 1
    for slot in (1, 2, 5):
        slots.give_back(slot)
    slots.cool([leaf])
    assert (len(opened), slots.warm, slots.next_is_warm) == (8, 5, False)
    assert leaf[[0, 3, 4, 6, 7]].all()


def test_runs_are_the_ranges_without_a_gap():
    assert [*runs_of([1, 2, 5, 7, 8])] == [range(1, 3), range(5, 6), range(7, 9)]
    assert [*runs_of([])] == []
