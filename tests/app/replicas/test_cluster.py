"""The check of the log of tapes, on a table made by hand."""

from collections.abc import Iterator

import pytest

from benchmarks.chaos.cluster import check_log_of_tapes
from benchmarks.chaos.record import Violation
from benchmarks.postgres import Postgres

WHOLE = [(1, 0, 2, 1), (1, 2, 3, 1), (1, 5, 1, 4), (2, 7, 1, 3)]
"""Entries of two tapes: tape, step, steps, epoch."""


@pytest.fixture
def log(postgres: Postgres) -> Iterator[Postgres]:
    """Return a database with an empty log."""
    postgres.run("CREATE TABLE log (tape int, step int, steps int, epoch int)")
    yield postgres
    postgres.run("DROP TABLE log")


def fill(postgres: Postgres, entries: list[tuple[int, int, int, int]]) -> None:
    for entry in entries:
        postgres.run("INSERT INTO log VALUES (%s, %s, %s, %s)", *entry)


def test_log_without_gaps_is_counted(log):
    fill(log, WHOLE)
    assert check_log_of_tapes(log) == 4


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ((1, 7, 1, 4), "step 7, steps 1, epoch 4, step after the one before 6"),
        ((1, 5, 1, 5), "step 5, steps 1, epoch 5, step after the one before 6"),
        ((1, 4, 2, 2), "step 4, steps 2, epoch 2, step after the one before 5"),
        ((1, 6, 1, 3), "epoch 3, step after the one before 6, epoch of the one before 4"),
    ],
    ids=["gap", "twice", "overlap", "lower epoch"],
)
def test_log_with_a_fault_is_a_violation(log, entry, fault):
    fill(log, [*WHOLE, entry])
    with pytest.raises(Violation, match=fault):
        check_log_of_tapes(log)
