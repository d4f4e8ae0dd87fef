"""Tasks that nobody waits for."""

import asyncio

from app.futures import begin
from tests.app.asynchronous import run, until


def test_task_is_kept_until_it_is_done():
    async def test() -> None:
        running, gate, done = set[asyncio.Task[None]](), asyncio.Event(), list[int]()

        async def work() -> None:
            await gate.wait()
            done.append(1)

        task = begin(work(), running)
        assert running == {task}
        gate.set()
        await until(lambda: not running)
        assert done == [1]

    run(test())
