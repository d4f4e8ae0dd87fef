import numpy as np
import pytest

from app.engine.run import Run
from app.engine.scheduler import ACTIVE_SECONDS, BATCH_BYTES, ENOUGH_ROWS, TICK_SECONDS, Linger, Pace, Scheduler


def a_run(
    slot: int = 0, steps: int = 3, rows: int = 1, memory_size: int | None = None, trace: tuple[str, ...] = ()
) -> Run:
    return Run([slot] * rows, memory_size, np.zeros((rows, steps, 1), np.float32), trace, lambda _: None)


def scheduler(max_batch: int = 4, state_bytes: int = 1, takes_several: bool = False) -> Scheduler:
    return Scheduler(max_batch, lambda _: state_bytes, takes_several)


@pytest.fixture
def runs() -> list[Run]:
    return [a_run(slot) for slot in range(5)]


def slots(scheduler: Scheduler) -> list[list[int]]:
    """Take the next batches, queue their runs again, and return the first slot of each run."""
    batches, _ = scheduler.next_batches()
    scheduler.add(run for batch in batches for run in batch.runs)
    return [[run.held[0] for run in batch.runs] for batch in batches]


def test_batches_are_round_robin(runs):
    turns = scheduler(max_batch=2)
    turns.add(runs)
    assert [slots(turns) for _ in range(5)] == [[[0, 1]], [[2, 3]], [[4, 0]], [[1, 2]], [[3, 4]]]


def test_joining_runs_are_in_the_next_batch(runs):
    turns = scheduler()
    turns.add(runs[:1])
    [first], _ = turns.next_batches()
    turns.add(runs[1:3])
    turns.add(first.runs)
    assert slots(turns) == [[1, 2, 0]]


def test_empty_scheduler_has_no_batches():
    turns = scheduler()
    assert turns.next_batches() == ([], [])
    assert len(turns) == 0


def test_abandoned_runs_are_not_batched(runs):
    turns = scheduler()
    turns.add(runs[:3])
    runs[1].released = True
    batches, abandoned = turns.next_batches()
    assert ([batch.runs for batch in batches], abandoned) == ([[runs[0], runs[2]]], [runs[1]])


def test_runs_of_several_memory_sizes_are_batched_apart():
    turns = scheduler()
    turns.add([a_run(0, memory_size=8), a_run(1, memory_size=16), a_run(2, memory_size=8)])
    assert slots(turns) == [[0, 2], [1]]


@pytest.mark.parametrize(
    ("state_bytes", "batches"),
    [(1, [[0, 1, 2]]), (BATCH_BYTES // 2, [[0, 1], [2]]), (2 * BATCH_BYTES, [[0], [1], [2]])],
)
def test_large_states_are_in_smaller_batches(runs, state_bytes, batches):
    turns = scheduler(state_bytes=state_bytes)
    turns.add(runs[:3])
    assert slots(turns) == batches


def test_run_of_more_rows_than_a_batch_steps_alone():
    turns = scheduler(max_batch=2)
    turns.add([a_run(0), a_run(1, rows=5), a_run(2)])
    assert [slots(turns) for _ in range(3)] == [[[0]], [[1]], [[2, 0]]]


def steps_of(turns: Scheduler, *runs: Run) -> int:
    turns.add(runs)
    [batch], _ = turns.next_batches()
    return batch.steps


@pytest.mark.parametrize(
    ("lengths", "trace", "takes_several", "steps"),
    [((7,), (), True, 7), ((7, 3), (), True, 3), ((7, 1), (), True, 1), ((7,), ("t",), True, 1), ((7,), (), False, 1)],
)
def test_batch_takes_the_steps_all_runs_have_left(lengths, trace, takes_several, steps):
    turns = scheduler(takes_several=takes_several)
    turns.pace.note(None, 1, 1, 1e-9)
    assert steps_of(turns, *(a_run(steps=length, trace=trace) for length in lengths)) == steps


def test_steps_in_one_call_are_bounded_by_their_time():
    turns = scheduler(takes_several=True)
    assert steps_of(turns, a_run(steps=1000)) == 1, "nothing was measured yet"
    turns.pace.note(None, 1, 1, TICK_SECONDS / 10)
    assert steps_of(turns, a_run(steps=1000)) == 10
    assert steps_of(turns, a_run(steps=1000, rows=3)) == 3
    turns.pace.note(None, 3, 1, TICK_SECONDS * 30)
    assert steps_of(turns, a_run(steps=1000, rows=3)) == 1


def test_longer_calls_take_more_steps():
    turns = Scheduler(4, lambda _: 1, takes_several=True, tick_seconds=5 * TICK_SECONDS)
    turns.pace.note(None, 1, 1, TICK_SECONDS / 10)
    assert steps_of(turns, a_run(steps=1000)) == 50


def test_batch_is_smaller_if_one_call_then_suffices():
    turns = scheduler(max_batch=1000, takes_several=True)
    turns.pace.note(None, ENOUGH_ROWS, 1, ENOUGH_ROWS * TICK_SECONDS / 40.5 / 16)
    turns.add(a_run(slot, steps=16) for slot in range(80))
    sizes = []
    while len(turns):
        [batch], _ = turns.next_batches()
        sizes.append((len(batch.runs), batch.steps))
    assert sizes == [(40, 16), (40, 16)]
    turns.add(a_run(slot, steps=1) for slot in range(100))
    [batch], _ = turns.next_batches()
    assert (len(batch.runs), batch.steps) == (100, 1)


def test_pace_is_of_the_same_or_a_smaller_size():
    pace = Pace()
    assert pace.seconds(8, 4) is None
    pace.note(8, 2, 5, 1.0)
    assert (pace.seconds(8, 1), pace.seconds(8, 2), pace.seconds(8, 100), pace.seconds(9, 2)) == (None, 0.1, 0.1, None)
    pace.note(8, 100, 1, 1.0)
    assert pace.seconds(8, 100) == 0.01


def test_steps_linger_until_half_of_the_sessions_arrive():
    now = 0.0
    linger = Linger(0.01, lambda: now)
    for slot in range(10):
        linger.note([slot])
    assert [linger.is_enough(rows) for rows in (4, 5)] == [False, True]
    now = 1.5 * ACTIVE_SECONDS
    linger.note([0, 1])
    assert [linger.is_enough(rows) for rows in (4, 5)] == [False, True], "sessions of the period before count"
    now = 3 * ACTIVE_SECONDS
    linger.note([0, 1])
    assert [linger.is_enough(rows) for rows in (0, 1)] == [False, True]
    assert Linger(0.0).is_enough(0), "off"
