"""The application put together: its start, its upkeep and its stop."""

import asyncio

from app.main import create_app
from app.settings import Settings


def test_upkeep_that_fails_is_logged_at_once(few, data, monkeypatch, caplog):
    async def fail(_: object) -> None:
        raise ValueError("no lag today")

    async def run() -> None:
        async with app.router.lifespan_context(app):
            await asyncio.sleep(0.05)
            logged.append(caplog.text)

    monkeypatch.setattr("app.main.watch_loop", fail)
    app, logged = create_app(Settings(checkpoints=few, data=data)), list[str]()
    asyncio.run(run())
    assert "a part of the upkeep has failed" in logged[0]
    assert "ValueError: no lag today" in logged[0]
