"""Routes: step one session, or many."""

from fastapi import APIRouter, Request, Response

from app.api.answers import answer_msgpack, answer_numbers
from app.api.codec import JSON_PROTOCOL, MSGPACK_PROTOCOL
from app.api.deps import read_body, services
from app.api.hot import hot
from app.api.leases import hold_answer
from app.api.many import asked_of, bytes_of_many, document, read_many
from app.api.media import MSGPACK, media_type
from app.api.openapi import BINARY, PROBLEMS, documented_body
from app.api.requests import read_steps
from app.api.schemas import ManyStepsAnswer, ManyStepsRequest, StepsAnswer, StepsRequest
from app.api.steps import STEPS_PATH, output_bytes, steps_document, steps_of
from app.tenants import inside

router = APIRouter(responses=PROBLEMS)


@hot(
    router,
    STEPS_PATH,
    response_model=StepsAnswer,
    tags=["sessions"],
    openapi_extra=documented_body(StepsRequest),
)
async def step_session(request: Request, session: str) -> Response:
    """Step a session over a sequence; concurrent requests are served one after the other."""
    _, sessions, settings, decoders, caller, budgets = services(request)
    body = await read_body(request, settings.max_body_bytes, budgets.uploads)
    found = await sessions.turns.find(inside(caller.tenant, session))
    steps = steps_of(found, *await decoders.call(read_steps, body, found.model.inputs, settings.max_steps))
    count = len(steps.inputs)
    traces = found.model.trace_bytes(steps.trace, count, found.memory_size)
    hold_answer(request, budgets, output_bytes(found.model, count), traces)
    caller.take_steps([steps.inputs])
    return answer_numbers(steps_document(await sessions.stepping.step(found, steps)))


@hot(
    router,
    "/steps",
    response_model=ManyStepsAnswer,
    tags=["sessions"],
    openapi_extra=documented_body(ManyStepsRequest, {MSGPACK: BINARY}),
)
async def step_sessions(request: Request) -> Response:
    """Step many sessions at once, each over a sequence of its own; one that fails does so alone."""
    _, sessions, settings, decoders, caller, budgets = services(request)
    binary = media_type(request.scope["headers"]) == MSGPACK
    body = await read_body(request, settings.max_body_bytes, budgets.uploads)
    limits = (settings.max_steps, settings.sequences_at_once)
    protocol = MSGPACK_PROTOCOL if binary else JSON_PROTOCOL
    wanted = await decoders.call(read_many, body, protocol, ManyStepsRequest, *limits)
    names = [inside(caller.tenant, name) for name in wanted.sessions]
    asked = asked_of(wanted, await sessions.turns.find_all(names), settings.max_trace_bytes)
    hold_answer(request, budgets, *bytes_of_many(wanted, asked))
    caller.take_steps(wanted.inputs)
    reply = document(wanted, await sessions.stepping.step_all(asked))
    return answer_msgpack(reply) if binary else answer_numbers(reply)
