"""Whether the parts of the server are ready: the store can be read, and each version of a model takes a step."""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

from app.catalogue import ModelCatalogue, ServedModel
from app.errors import EngramError
from app.sessions.service import SessionService

STORE = {"part": "store"}


async def check_parts(
    models: ModelCatalogue, sessions: SessionService, timeout: float, model: str | None = None, store: bool = False
) -> list[dict[str, Any]]:
    """Return the outcome of each part that is asked for, at most `timeout` seconds later: all parts by default.

    model: the name of one, in all versions that run; store: whether to ask the store, if not all parts are asked.
    """
    asked: list[tuple[dict[str, Any], Awaitable[None]]] = []
    if store or model is None:
        asked.append((STORE, sessions.probe()))
    chosen = [each for each in models.all if model == each.name or (model is None and not store)]
    asked += [(_part(each, each not in models.retired), each.engine.probe()) for each in chosen]
    outcomes = await asyncio.gather(*(_outcome(probe, timeout) for _, probe in asked))
    return [part | outcome for (part, _), outcome in zip(asked, outcomes, strict=True)]


def not_ready(checks: Sequence[dict[str, Any]], timeout: float) -> str:
    """Return a message that names the parts that are not ready."""
    silent = ["the store" if check["part"] == "store" else check["model"] for check in checks if not check["ready"]]
    return f"no answer came within {timeout:g} s from {', '.join(dict.fromkeys(silent))}"


def _part(model: ServedModel, offered: bool) -> dict[str, Any]:
    return {"part": "model", "model": model.name, "version": model.fingerprint, "offered": offered}


async def _outcome(probe: Awaitable[None], timeout: float) -> dict[str, Any]:
    """Return whether a probe succeeds in time, and the reason if not."""
    try:
        await asyncio.wait_for(probe, timeout)
    except TimeoutError:
        return {"ready": False, "reason": f"no answer came within {timeout:g} s"}
    except EngramError as error:
        return {"ready": False, "reason": error.detail}
    except Exception as error:
        return {"ready": False, "reason": f"it failed: {type(error).__name__}"}
    return {"ready": True}
