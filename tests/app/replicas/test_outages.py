"""The time without service, of waits and faults made by hand."""

from benchmarks.chaos.outages import OUTAGES, Fault, Outages, measure
from benchmarks.chaos.record import Wait

KILL, STOP = Fault("kill", 10, 12), Fault("stop", 20, 21)


def test_longest_wait_of_each_session_counts():
    waits = [Wait("a", 11, 14, 2), Wait("b", 11, 12, 1), Wait("a", 15, 16, 1)]
    assert Outages([KILL, STOP], waits).by_kind() == {"kill": [3, 1], "stop": []}


def test_wait_counts_for_the_fault_that_it_met():
    waits = [Wait("a", 9.9, 14, 1), Wait("a", 19.9, 20.5, 1), Wait("b", 12, 25, 3)]
    assert Outages([KILL, STOP], waits).by_kind() == {"kill": [14 - 9.9, 13], "stop": [20.5 - 19.9]}


def test_wait_before_all_faults_or_without_retry_counts_not():
    waits = [Wait("a", 1, 5, 4), Wait("b", 11, 19, 0)]
    assert Outages([KILL, STOP], waits).by_kind() == {"kill": [], "stop": []}


def test_row_has_the_sessions_of_each_fault_and_their_waits():
    again = KILL._replace(began=30, ended=31)
    waits = [Wait("a", 11, 12, 1), Wait("b", 11, 14, 1), Wait("a", 30, 32, 1)]
    [row] = measure(Outages([KILL, again], waits))
    assert dict(zip(OUTAGES.columns, row, strict=True)) == {
        "fault": "kill",
        "times": 2,
        "sessions each time": 1.5,
        "median": 2,
        "95th percentile": 2.9,
        "longest": 3,
    }


def test_kind_that_met_no_session_has_a_row():
    assert [list(row) for row in measure(Outages([KILL], []))] == [["kill", 1, 0.0, "-", "-", "-"]]
