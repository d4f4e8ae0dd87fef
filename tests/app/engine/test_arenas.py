"""Slots of several memory sizes, over the fake back end."""

import weakref

import pytest

from app.backends.fake import FakeBackend
from app.engine.arenas import Arenas, Slot
from app.errors import OutOfMemory
from tests.app.budgets import states

OWN = 8


class Tracked(FakeBackend):
    """Keeps weak references to the back ends that were resized from it."""

    made: "list[weakref.ref[FakeBackend]]"

    def __init__(self, capacity: int = 4) -> None:
        super().__init__(capacity=capacity, memory_size=OWN)
        self.made = []

    def resized(self, memory_size: int) -> FakeBackend:
        other = super().resized(memory_size)
        self.made.append(weakref.ref(other))
        return other

    @property
    def alive(self) -> list[int | None]:
        """The memory sizes of the back ends that still exist."""
        found = [reference() for reference in self.made]
        return [backend.spec.memory_size for backend in found if backend is not None]


def test_slot_without_a_size_is_in_the_first_back_end():
    backend = Tracked()
    arenas = Arenas(backend, states())
    assert arenas.open() == Slot(OWN, 0)
    assert arenas.open(OWN) == Slot(OWN, 1)
    assert (arenas.of(Slot(OWN, 0)), backend.made) == (backend, [])


def test_slot_of_another_size_has_that_memory():
    arenas = Arenas(Tracked(), states())
    slot = arenas.open(20)
    assert slot == Slot(20, 0)
    assert arenas.of(slot).read(slot.number)["memory"].shape == (20,)


def test_slots_of_one_size_share_a_back_end():
    backend = Tracked()
    arenas = Arenas(backend, states())
    slots = [arenas.open(20), arenas.open(20), arenas.open(30)]
    assert arenas.of(slots[0]) is arenas.of(slots[1])
    assert backend.alive == [20, 30]


def test_slots_of_other_forces_are_in_other_back_ends():
    backend = Tracked()
    arenas = Arenas(backend, states())
    shut, open_ = '{"write_gate":[0.0]}', '{"write_gate":[1.0]}'
    slots = [arenas.open(force=shut), arenas.open(OWN, force=shut), arenas.open(20, force=open_), arenas.open(20)]
    assert slots == [Slot(OWN, 0, shut), Slot(OWN, 1, shut), Slot(20, 0, open_), Slot(20, 0)]
    assert [arenas.of(slot).spec.force for slot in slots] == [shut, shut, open_, None]
    assert arenas.of(slots[0]) is arenas.of(slots[1])
    for slot in slots:
        arenas.close(slot)
    assert list(arenas._backends) == [(OWN, None)]


def test_back_end_ends_with_its_last_slot():
    backend = Tracked()
    arenas = Arenas(backend, states())
    slots = [arenas.open(20), arenas.open(20)]
    arenas.close(slots[0])
    assert backend.alive == [20]
    arenas.close(slots[1])
    assert backend.alive == []
    arenas.close(arenas.open())
    assert arenas.open() == Slot(OWN, 0)


def test_states_beyond_the_limit_are_refused_until_others_are_closed():
    backend = Tracked()
    arenas = Arenas(backend, states(4 * (2 + 20) + 4 * (2 + OWN)))
    slot = arenas.open(20)
    arenas.open()
    with pytest.raises(OutOfMemory, match=r"take 128 bytes, and one of 40 more .*may take 128 \(setting max_memory"):
        arenas.open()
    with pytest.raises(OutOfMemory):
        arenas.open(2)
    assert backend.alive == [20]
    arenas.close(slot)
    assert arenas.open(19) == Slot(19, 0)


def test_refused_slot_leaves_no_back_end():
    backend = Tracked(capacity=0)
    with pytest.raises(MemoryError):
        Arenas(backend, states()).open(20)
    assert backend.alive == []


def test_free_slots_are_held_until_their_memory_is_needed():
    budget = states(4 * 2**21)
    large, small = Arenas(FakeBackend(2**18), budget), Arenas(FakeBackend(2**18), budget)
    slots = [large.open() for _ in range(8)]
    with pytest.raises(OutOfMemory):
        small.open()
    for slot in slots[2:]:
        large.close(slot)
    assert (budget.used, large.spare_bytes) == (8 * 2**20, 6 * 2**20)
    large.cool()
    assert (budget.used, large.spare_bytes) == (2 * 2**20, 0)
    assert [small.open().number for _ in range(6)] == list(range(6))
    with pytest.raises(OutOfMemory):
        large.open()


def test_warm_slot_is_opened_again_at_no_cost():
    budget = states()
    arenas = Arenas(FakeBackend(), budget)
    for _ in range(3):
        arenas.close(arenas.open())
    assert budget.used == arenas.spare_bytes == 8


def test_slot_that_cannot_be_opened_is_not_held():
    budget = states()
    arenas = Arenas(FakeBackend(capacity=1), budget)
    arenas.open()
    for _ in range(3):
        with pytest.raises(MemoryError):
            arenas.open()
    assert (budget.used, arenas.spare_bytes) == (8, 0)


def test_arenas_that_end_hold_nothing():
    budget = states()
    arenas = Arenas(Tracked(), budget)
    arenas.close(arenas.open())
    arenas.open(20)
    assert budget.used > 0
    arenas.release()
    assert budget.used == 0
