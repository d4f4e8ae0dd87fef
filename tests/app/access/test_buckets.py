"""Budgets of a caller, on a clock that the test moves."""

import math

import pytest

from app.access.buckets import OpenStreams, StepsBucket
from app.errors import RateLimited, StreamsFull


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def refused(bucket: StepsBucket, steps: int) -> int:
    """Return the seconds after which a refused request may succeed."""
    with pytest.raises(RateLimited) as raised:
        bucket.take(steps)
    return int(raised.value.headers["Retry-After"])


def took(bucket: StepsBucket, steps: int) -> bool:
    try:
        bucket.take(steps)
    except RateLimited:
        return False
    return True


def test_full_bucket_holds_the_steps_of_a_second():
    bucket = StepsBucket(10, Clock())
    bucket.take(4)
    bucket.take(6)
    assert refused(bucket, 1) == 1


def test_refused_request_takes_nothing():
    clock = Clock()
    bucket = StepsBucket(10, clock)
    bucket.take(5)
    assert refused(bucket, 6) == 1
    bucket.take(5)


def test_request_succeeds_after_the_seconds_that_it_was_given():
    clock = Clock()
    bucket = StepsBucket(0.25, clock)
    bucket.take(1)
    assert refused(bucket, 1) == 4
    clock.now += 3.99
    assert refused(bucket, 1) == 1
    clock.now += 0.01
    bucket.take(1)


def test_request_larger_than_the_bucket_goes_into_debt():
    clock = Clock()
    bucket = StepsBucket(10, clock)
    bucket.take(100)
    assert refused(bucket, 1) == math.ceil(9.1)
    clock.now += 9.1
    bucket.take(1)
    assert refused(bucket, 100) == 1, "the bucket must be full for it"


def test_mean_rate_holds_whatever_the_sizes_of_requests():
    clock, taken = Clock(), 0
    bucket = StepsBucket(10, clock)
    for size in (1, 3, 7, 12, 30) * 20:
        while not took(bucket, size):
            clock.now += 0.01
        taken += size
    allowed = 10 * (clock.now - 1000)
    assert 0.95 * allowed <= taken <= allowed + 10 + 30, "beyond the first second's, and the debt of the last"


def test_idle_bucket_overflows_at_its_capacity():
    clock = Clock()
    bucket = StepsBucket(10, clock)
    clock.now += 3600
    bucket.take(10)
    assert refused(bucket, 1) == 1


def test_bucket_without_a_limit_never_refuses():
    bucket = StepsBucket(None, Clock())
    bucket.take(10**12)
    bucket.take(10**12)


def test_streams_are_refused_until_one_is_closed():
    streams = OpenStreams(2)
    streams.enter()
    streams.enter()
    with pytest.raises(StreamsFull, match="2 open WebSockets"):
        streams.enter()
    assert streams.count == 2
    streams.leave()
    streams.enter()


def test_streams_without_a_limit_are_only_counted():
    streams = OpenStreams(None)
    for _ in range(5):
        streams.enter()
    assert streams.count == 5
