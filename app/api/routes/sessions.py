"""Routes: open, list, describe and end sessions."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app.api.answers import answer, answer_opened, session_document
from app.api.deps import (
    IdempotencyKey,
    SessionName,
    TheBudgets,
    TheCaller,
    TheDecoders,
    TheSessions,
    TheSettings,
    TheUploads,
    body_chunks,
    read_body,
    tenant_of_caller,
)
from app.api.media import SAFETENSORS, media_type
from app.api.openapi import BINARY, OPENED, PROBLEMS, documented_body
from app.api.requests import read_document
from app.api.schemas import EndedAnswer, OpenRequest, SessionAnswer
from app.errors import SessionGone
from app.sessions.snapshot import MAX_HEADER_BYTES
from app.tenants import outside

router = APIRouter(responses=PROBLEMS)


@router.post(
    "/sessions",
    status_code=201,
    response_model=SessionAnswer,
    tags=["sessions"],
    responses=OPENED,
    openapi_extra=documented_body(OpenRequest, {SAFETENSORS: BINARY}),
)
async def open_session(
    request: Request,
    sessions: TheSessions,
    settings: TheSettings,
    decoders: TheDecoders,
    caller: TheCaller,
    budgets: TheBudgets,
    uploads: TheUploads,
    model: Annotated[str | None, Query(description="for a snapshot: the model, where it has several names")] = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Open a session: a state of its own that stays on the server between requests; or go on with a snapshot."""
    tenant = tenant_of_caller(caller)
    if media_type(request.scope["headers"]) == SAFETENSORS:
        most = max(settings.max_body_bytes, settings.max_state_bytes + MAX_HEADER_BYTES)
        async with uploads.receive(body_chunks(request, most, budgets.uploads)) as data:
            opened = await sessions.opening.open_from(data, model, idempotency_key, tenant)
        return answer_opened(opened, sessions, "sessions/")
    body = await read_body(request, settings.max_body_bytes, budgets.uploads)
    wanted = await decoders.call(read_document, body, OpenRequest)
    opened = await sessions.opening.open(wanted.model, wanted.memory_size, idempotency_key, tenant, wanted.force)
    return answer_opened(opened, sessions, "sessions/")


@router.get("/sessions", response_model=list[SessionAnswer], tags=["sessions"])
async def list_sessions(
    sessions: TheSessions,
    caller: TheCaller,
    model: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """List open sessions of the key's tenant, the most recently used first.

    Of a session that another server has, it shows the step that the store has.
    """
    listed = await sessions.all(model, limit, caller.tenant)
    return answer([session_document(session, sessions) for session in listed])


@router.get("/sessions/{session}", response_model=SessionAnswer | EndedAnswer, tags=["sessions"])
async def describe_session(
    session: SessionName,
    sessions: TheSessions,
    ended: Annotated[
        bool, Query(description="true: a session that has ended is answered 200, with the reason")
    ] = False,
) -> Response:
    """Describe one session: its model, the step reached, and when it expires.

    Of a session that another server has, it shows the step that the store has.
    """
    try:
        found = await sessions.turns.info(session)
    except SessionGone as gone:
        if not ended:
            raise
        return answer({"id": outside(session), "ended": gone.more["reason"]})
    return answer(session_document(found, sessions))


@router.delete("/sessions/{session}", status_code=204, response_class=Response, tags=["sessions"])
async def delete_session(session: SessionName, sessions: TheSessions) -> Response:
    """End a session."""
    await sessions.ending.delete(session)
    return Response(status_code=204)
