"""A service whose sessions tests name by their ids, as clients do."""

import asyncio
import functools
from collections.abc import Sequence
from contextlib import asynccontextmanager
from typing import Any

from app.futures import resolve
from app.sessions.service import SessionService
from app.sessions.session import Session, Steps


class ById:
    """Finds sessions and has the part of the service that is asked for use them."""

    def __init__(self, service: SessionService) -> None:
        self.service = service
        self.turns, self.ending, self.residents = service.turns, service.ending, service._residents
        self.saving, self.writer = service._saving, service._writer
        self.all, self.close, self.infer = service.all, service.close, service.inference.run
        self.open, self.open_from, self.fork = service.opening.open, service.opening.open_from, service.opening.fork
        self.find, self.unwatch = service.turns.find, service.turns.unwatch
        self.delete, self.expire_idle = service.ending.delete, service.ending.expire_idle
        self.keep_expiring = service.ending.keep_expiring
        self.submit_all = service.stepping.submit_all

    @property
    def known(self) -> dict[str, Session]:
        """The sessions that are in use or resident."""
        return self.turns._sessions

    def model(self) -> Any:
        return self.service._models.get("fake")

    def resident(self) -> int:
        return self.service.resident("fake")

    async def info(self, name: str) -> Any:
        return await self.turns.info(name)

    async def step(
        self, name: str | Session, inputs: Any, trace: Sequence[str] = (), if_step: int | None = None
    ) -> Any:
        return await self._submitted(name, Steps(inputs, trace, if_step))

    async def step_frame(self, name: str | Session, inputs: Any, trace: Sequence[str], seq: int | None) -> Any:
        return await self._submitted(name, Steps(inputs, trace, seq=seq))

    async def _submitted(self, name: str | Session, steps: Steps) -> Any:
        self.turns.check_open()
        session = await self.find(name) if isinstance(name, str) else name
        waiter: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.service.stepping.submit(self.turns.shared(session), steps, functools.partial(resolve, waiter))
        return await waiter

    def submit(self, session: Session, steps: Steps, done: Any) -> None:
        self.service.stepping.submit(session, steps, done)

    async def info_in_turn(self, name: str) -> Any:
        return await self.turns.info_in_turn(await self.find(name))

    async def watch(self, name: str) -> Session:
        return await self.turns.watch(await self.find(name))

    @asynccontextmanager
    async def watching(self, name: str) -> Any:
        async with self.turns.watching(await self.find(name)) as session:
            yield session

    async def state(self, name: str, step: int | None = None) -> Any:
        return await self.service.time_travel.state(await self.find(name), step)

    async def snapshot(self, name: str, step: int | None = None) -> bytes:
        return await self.service.time_travel.snapshot(await self.find(name), step)

    async def recording(
        self, name: str, start: int | None = None, stop: int | None = None, trace: Sequence[str] = ()
    ) -> Any:
        return await self.service.time_travel.recording(await self.find(name), start, stop, trace)

    async def rewind(self, name: str, step: int) -> Any:
        return await self.service.time_travel.rewind(name, step)

    async def reset(self, name: str) -> Any:
        return await self.service.time_travel.reset(name)
