"""Large requests are decoded in other processes, and the event loop goes on."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from app.api.decoders import ALONE, LARGE, Decoders
from app.api.requests import read_steps
from app.catalogue import InputFormat
from app.errors import InvalidInput, OutOfMemory, ShuttingDown

pytestmark = pytest.mark.slow

T = TypeVar("T")

SMALL, BIG = b"0", b"0" * LARGE


def process_of(_: bytes) -> int:
    return os.getpid()


def end_process(_: bytes) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail(_: bytes) -> None:
    raise KeyError("a bug")


def run_out(_: bytes) -> None:
    raise MemoryError


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    decoders = Decoders()
    yield decoders
    decoders.close()


def ask(decoders: Decoders, function: Callable[..., T], data: bytes, *arguments: Any) -> T:
    return asyncio.run(decoders.call(function, data, *arguments))


def test_only_large_requests_go_to_another_process(decoders):
    assert ask(decoders, process_of, SMALL) == os.getpid()
    first, second = ask(decoders, process_of, BIG), ask(decoders, process_of, BIG)
    assert first == second != os.getpid()


def test_event_loop_turns_while_a_large_request_is_decoded(decoders):
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async def test() -> None:
        turning = asyncio.ensure_future(turn())
        body = b'{"inputs":[' + b"[0,1]," * 99_999 + b"[0,1]]}"
        _, inputs = await decoders.call(read_steps, body, InputFormat(2), 10**6)
        turning.cancel()
        assert (inputs.shape, inputs.dtype, inputs.sum()) == ((100_000, 2), np.float32, 100_000)

    asyncio.run(test())
    assert turns > 20


def test_refusal_comes_back_as_it_was_raised(decoders):
    body = b'{"inputs":[' + b"[0,1]," * 99_999 + b"[0,null]]}"
    with pytest.raises(InvalidInput, match="expected a finite number") as refusal:
        ask(decoders, read_steps, body, InputFormat(2), 10**6)
    assert refusal.value.more["place"] == "inputs[99999][1]"


def test_bug_comes_back_with_the_place_where_it_was(decoders):
    with pytest.raises(KeyError) as failure:
        ask(decoders, fail, BIG)
    assert 'raise KeyError("a bug")' in failure.value.__notes__[0]


def test_ended_process_is_reported_and_the_next_request_decoded(decoders):
    for function in (end_process, run_out):
        with pytest.raises(OutOfMemory, match="not enough memory to decode the request"):
            ask(decoders, function, BIG)
    assert ask(decoders, process_of, BIG) != os.getpid()


def test_process_that_ended_while_idle_is_replaced(decoders):
    process = ask(decoders, process_of, BIG)
    os.kill(process, signal.SIGKILL)
    while " Z " not in Path(f"/proc/{process}/stat").read_text() or len(os.listdir(f"/proc/{process}/task")) > 1:
        time.sleep(0.01)
    assert ask(decoders, process_of, BIG) not in (process, os.getpid())


def interval(_: bytes) -> tuple[float, float]:
    began = time.monotonic()  # the same clock in all processes
    time.sleep(0.3)
    return began, time.monotonic()


def test_largest_requests_are_decoded_one_at_a_time(decoders):
    async def test() -> None:
        await asyncio.gather(*(decoders.call(interval, BIG) for _ in range(2)))  # the processes take time to start
        sizes = [ALONE, ALONE, LARGE]
        first, second, small = await asyncio.gather(*(decoders.call(interval, b" " * size) for size in sizes))
        assert first[1] <= second[0]
        assert small[0] < second[0]

    asyncio.run(test())


def stop_process(_: bytes) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def test_process_that_does_not_answer_is_ended(decoders, monkeypatch):
    monkeypatch.setattr("app.api.decoders.LONGEST_SECONDS", 0.5)
    with pytest.raises(OutOfMemory):
        ask(decoders, stop_process, BIG)
    monkeypatch.undo()
    assert ask(decoders, process_of, BIG) != os.getpid()


def test_decoders_close_though_a_process_does_not_answer():
    async def test() -> None:
        decoders = Decoders()
        waiting = [asyncio.ensure_future(decoders.call(stop_process, BIG)) for _ in range(4)]
        await asyncio.sleep(1)
        await asyncio.to_thread(decoders.close)
        for each in (*waiting, decoders.call(process_of, BIG)):
            with pytest.raises(ShuttingDown):
                await each

    asyncio.run(asyncio.wait_for(test(), 30))


def test_processes_end_when_the_decoders_are_closed():
    decoders = Decoders()
    process = Path(f"/proc/{ask(decoders, process_of, BIG)}")
    decoders.close()
    assert not process.exists()
