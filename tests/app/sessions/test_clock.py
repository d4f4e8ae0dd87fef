import pytest

from app.sessions.clock import Clock


class Moved:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def test_time_goes_on_whatever_becomes_of_the_systems_clock():
    wall, monotonic = Moved(1000.0), Moved(5.0)
    clock = Clock(wall=wall, monotonic=monotonic)
    for jump in (-900.0, 1e9):
        wall.now += jump
        monotonic.now += 1
    assert clock() == 1002.0


@pytest.mark.parametrize("wall", [1000.0, 5001.0, 1e9])
def test_time_begins_where_the_last_clock_stopped(wall):
    assert Clock(5000.0, Moved(wall), Moved(7.0))() == 5000.0


def test_first_time_of_all_is_that_of_the_system():
    assert Clock(0.0, Moved(1000.0), Moved(7.0))() == 1000.0
