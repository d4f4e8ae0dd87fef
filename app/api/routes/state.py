"""Route: the state of a session."""

import asyncio
from typing import Annotated

import safetensors.numpy
from fastapi import APIRouter, Header, Query, Request, Response

from app.api.answers import answer_file, answer_numbers
from app.api.codec import array_bytes
from app.api.deps import SessionName, TheBudgets, TheSessions
from app.api.leases import hold
from app.api.media import SAFETENSORS, accepts
from app.api.openapi import BINARY, PROBLEMS
from app.api.schemas import LARGEST, StateAnswer
from app.sessions.snapshot import COPIES, LARGE

router = APIRouter(responses=PROBLEMS)


@router.get(
    "/sessions/{session}/state",
    response_model=StateAnswer,
    tags=["sessions"],
    responses={200: {"content": {SAFETENSORS: BINARY}, "description": "JSON, or safetensors by Accept"}},
)
async def read_state(
    request: Request,
    session: SessionName,
    sessions: TheSessions,
    budgets: TheBudgets,
    names: Annotated[str | None, Query(description="leaves, separated by commas; all without it")] = None,
    step: Annotated[int | None, Query(ge=0, le=LARGEST, description="any step that is kept; else the last")] = None,
    accept: Annotated[str, Header(include_in_schema=False)] = "application/json",
) -> Response:
    """Return what a session has in memory, and where its heads are."""
    found = await sessions.turns.find(session)
    model = found.model
    wanted = model.leaves(names.split(",") if names is not None else list(model.spec.state))
    hold(request, budgets.answers, COPIES * found.state_bytes)
    reached, state = await sessions.time_travel.state(found, step)
    chosen = {name: state[name] for name in wanted}
    if accepts(accept, SAFETENSORS):
        metadata = {"session": found.public_id, "model": model.name, "step": str(reached)}
        if array_bytes(chosen) < LARGE:
            return answer_file(safetensors.numpy.save(chosen, metadata))
        return answer_file(await asyncio.to_thread(safetensors.numpy.save, chosen, metadata))
    return answer_numbers({"id": found.public_id, "step": reached, "state": chosen})
