import asyncio

import numpy as np
import pytest

from app.engine.run import Run
from app.engine.scheduler import Scheduler


@pytest.fixture
def runs() -> list[Run]:
    loop = asyncio.new_event_loop()
    made = [Run(slot, np.zeros((3, 1)), (), loop.create_future()) for slot in range(5)]
    loop.close()
    return made


def slots(batch: list[Run]) -> list[int | None]:
    return [run.slot for run in batch]


def test_next_batch_takes_turns(runs):
    scheduler = Scheduler(max_batch=2)
    scheduler.add(runs)
    order = []
    for _ in range(5):
        batch = scheduler.next_batch()
        order.append(slots(batch))
        scheduler.add(batch)
    assert order == [[0, 1], [2, 3], [4, 0], [1, 2], [3, 4]]


def test_next_batch_takes_in_those_that_join(runs):
    scheduler = Scheduler(max_batch=4)
    scheduler.add(runs[:1])
    first = scheduler.next_batch()
    scheduler.add(runs[1:3])
    scheduler.add(first)
    assert slots(scheduler.next_batch()) == [1, 2, 0]


def test_next_batch_of_nothing_is_empty():
    scheduler = Scheduler(max_batch=4)
    assert scheduler.next_batch() == []
    assert len(scheduler) == 0
