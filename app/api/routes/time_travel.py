"""Routes: reset, rewind and fork a session; its snapshot and its recording."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from app.api.answers import answer, answer_file, answer_opened, session_document
from app.api.deps import (
    Body,
    IdempotencyKey,
    SessionName,
    TheBudgets,
    TheCaller,
    TheDecoders,
    TheSessions,
    tenant_of_caller,
)
from app.api.leases import hold
from app.api.media import JSON_LINES, SAFETENSORS
from app.api.openapi import BINARY, OPENED, PROBLEMS, documented_body
from app.api.recording import PIECES, recording_lines
from app.api.requests import read_document
from app.api.schemas import LARGEST, ForkRequest, RewindRequest, SessionAnswer
from app.api.steps import answer_bytes
from app.sessions.past import CHUNK_STEPS
from app.sessions.snapshot import COPIES

router = APIRouter(responses=PROBLEMS)


@router.post("/sessions/{session}/reset", response_model=SessionAnswer, tags=["time travel"])
async def reset_session(session: SessionName, sessions: TheSessions) -> Response:
    """Put a session back to before its first step; until its next step, rewind can undo that."""
    return answer(session_document(await sessions.time_travel.reset(session), sessions))


@router.post(
    "/sessions/{session}/rewind",
    response_model=SessionAnswer,
    tags=["time travel"],
    openapi_extra=documented_body(RewindRequest),
)
async def rewind_session(session: SessionName, body: Body, sessions: TheSessions, decoders: TheDecoders) -> Response:
    """Put a session back to a step that it was at; until its next step, it can also be put forward again."""
    wanted = await decoders.call(read_document, body, RewindRequest)
    return answer(session_document(await sessions.time_travel.rewind(session, wanted.step), sessions))


@router.post(
    "/sessions/{session}/fork",
    status_code=201,
    response_model=SessionAnswer,
    tags=["time travel"],
    responses=OPENED,
    openapi_extra=documented_body(ForkRequest, required=False),
)
async def fork_session(
    session: SessionName,
    body: Body,
    sessions: TheSessions,
    decoders: TheDecoders,
    caller: TheCaller,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Open a session that shares the past of another, up to where that one is or to an earlier step."""
    wanted = await decoders.call(read_document, body or b"{}", ForkRequest)
    tenant = tenant_of_caller(caller)
    opened = await sessions.opening.fork(session, wanted.step, idempotency_key, tenant, wanted.model, wanted.force)
    return answer_opened(opened, sessions, "../")


@router.get(
    "/sessions/{session}/snapshot",
    tags=["time travel"],
    response_class=Response,
    responses={200: {"content": {SAFETENSORS: BINARY}, "description": "for POST /sessions, here or on another server"}},
)
async def snapshot_session(
    request: Request,
    session: SessionName,
    sessions: TheSessions,
    budgets: TheBudgets,
    step: Annotated[int | None, Query(ge=0, le=LARGEST)] = None,
) -> Response:
    """Return the session in a file, as it is or as it was at a step."""
    found = await sessions.turns.find(session)
    hold(request, budgets.answers, COPIES * found.state_bytes)
    return answer_file(await sessions.time_travel.snapshot(found, step))


@router.get(
    "/sessions/{session}/recording",
    tags=["time travel"],
    response_class=Response,
    responses={200: {"content": {JSON_LINES: {"schema": {"type": "string"}}}, "description": "a line for each step"}},
)
async def read_recording(
    request: Request,
    session: SessionName,
    sessions: TheSessions,
    budgets: TheBudgets,
    caller: TheCaller,
    start: Annotated[int | None, Query(alias="from", ge=0, le=LARGEST, description="the step before the first")] = None,
    stop: Annotated[int | None, Query(alias="to", ge=0, le=LARGEST, description="the last step")] = None,
    trace: Annotated[str, Query(description="names of traces, separated by commas")] = "",
) -> Response:
    """Stream the inputs and outputs of a session's steps, the outputs computed again."""
    found = await sessions.turns.find(session)
    names = found.model.traces(trace.split(",") if trace else [])
    found.model.check_trace_bytes(names, CHUNK_STEPS, found.memory_size)
    hold(request, budgets.answers, PIECES * answer_bytes(found.model, CHUNK_STEPS, names, found.memory_size))
    pieces = await sessions.time_travel.recording(found, start, stop, names)
    first = await anext(pieces, None)  # before the answer begins: an error here has a status of its own
    return StreamingResponse(recording_lines(first, pieces, caller, found.force), media_type=JSON_LINES)
