"""The HTTP interface. Routes hold no logic: they parse, ask a service, and answer."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Annotated, Any

import safetensors.numpy
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse

from app.api.codec import (
    JSON_PROTOCOL,
    MSGPACK_PROTOCOL,
    PIECE_BYTES,
    array_bytes,
    encode_json,
    encode_msgpack,
    in_turns,
    json_pieces,
    slices,
)
from app.api.deps import (
    Body,
    TheDecoders,
    TheMetrics,
    TheModels,
    TheSessions,
    TheSettings,
    read_body,
    services,
    unless_disconnected,
)
from app.api.hot import hot
from app.api.many import asked_of, document, read_many
from app.api.requests import read_document, read_infer, read_steps
from app.api.schemas import (
    LARGEST,
    ForkRequest,
    HealthAnswer,
    InferAnswer,
    InferRequest,
    ManyStepsAnswer,
    ManyStepsRequest,
    ModelAnswer,
    OpenRequest,
    ProblemAnswer,
    ReadyAnswer,
    RewindRequest,
    SessionAnswer,
    StateAnswer,
    StepsAnswer,
    StepsRequest,
)
from app.api.steps import INFER_PATH, STEPS_PATH, sequence_document, steps_document, steps_of, trace_of
from app.engine.run import Result
from app.errors import EngramError, Unavailable, UpgradeRequired
from app.sessions.past import CHUNK_STEPS, Piece
from app.sessions.service import SessionService
from app.sessions.session import SessionInfo
from app.sessions.snapshot import LARGE, MAX_HEADER_BYTES

SAFETENSORS = "application/x-safetensors"
JSON_LINES = "application/x-ndjson"
MSGPACK = "application/msgpack"

IdempotencyKey = Annotated[
    str | None,
    Header(min_length=1, max_length=255, description="the same key opens one session, however often it comes"),
]

PROBLEMS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ProblemAnswer, "description": "What is wrong with the request, and where"},
    "500": {"model": ProblemAnswer, "description": "An error of the server, whose log has the details"},
    "503": {
        "model": ProblemAnswer,
        "description": "Too busy, or stopping: try again after Retry-After",
        "headers": {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}},
    },
}

OPENED: dict[int | str, dict[str, Any]] = {
    201: {
        "description": "The session",
        "headers": {
            "Location": {"schema": {"type": "string"}, "description": "its URL, relative to that of the request"}
        },
    }
}

BINARY = {"schema": {"type": "string", "format": "binary"}}

router = APIRouter(responses=PROBLEMS)


def documented_body(model: type[Any], others: Mapping[str, Any] | None = None, required: bool = True) -> dict[str, Any]:
    """Return what /docs shall say of a body that the route reads by itself; others: by their types."""
    content = {"application/json": {"schema": model.model_json_schema()}, **(others or {})}
    return {"requestBody": {"required": required, "content": content}}


def answer(document: Any, status: int = 200) -> Response:
    """Return a document, with arrays anywhere in it, as JSON."""
    return Response(encode_json(document), status, media_type="application/json")


def answer_numbers(document: Any) -> Response:
    """Return a document of arrays as JSON, written in pieces while it is sent where there are many numbers."""
    if array_bytes(document) <= PIECE_BYTES:
        return answer(document)
    return StreamingResponse(in_turns(json_pieces(document)), media_type="application/json")


def answer_file(data: bytes) -> Response:
    """Return a safetensors file, sent in pieces."""
    headers = {"Content-Length": str(len(data))}
    return StreamingResponse(in_turns(slices(data)), headers=headers, media_type=SAFETENSORS)


@router.get("/models", response_model=list[ModelAnswer], tags=["models"])
async def list_models(models: TheModels) -> Response:
    """List the models that are served."""
    return answer([model.describe() for model in models])


@router.get("/models/{name}", response_model=ModelAnswer, tags=["models"])
async def describe_model(name: str, models: TheModels) -> Response:
    """Describe one model: sizes, heads, controller, back end, schemas of state and traces, measured errors."""
    return answer(models.get(name).describe())


@hot(router, INFER_PATH, response_model=InferAnswer, tags=["inference"], openapi_extra=documented_body(InferRequest))
async def infer(request: Request) -> Response:
    """Run one sequence, or a batch of sequences of any lengths, each from a fresh state that is not kept."""
    models, sessions, settings, decoders = services(request)
    body = await read_body(request, settings.max_body_bytes)
    limits = (settings.max_steps, settings.sequences_at_once)
    wanted, (inputs, batched) = await decoders.call(read_infer, body, models.inputs, *limits)
    model = models.get(wanted.model)
    trace = trace_of(model, wanted, sum(map(len, inputs)))
    results = await unless_disconnected(request, sessions.infer(model, inputs, trace, wanted.memory_size))
    return answer_numbers(_batch(results) if batched else sequence_document(results[0]))


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
    model: Annotated[str | None, Query(description="for a snapshot: the model, where it has several names")] = None,
    idempotency_key: IdempotencyKey = None,
    content_type: Annotated[str, Header(include_in_schema=False)] = "application/json",
) -> Response:
    """Open a session: a state of its own that stays on the server between requests; or go on with a snapshot."""
    if SAFETENSORS in content_type.lower():
        data = await read_body(request, max(settings.max_body_bytes, settings.max_state_bytes + MAX_HEADER_BYTES))
        return _opened(await sessions.opening.open_from(data, model, idempotency_key), sessions, "sessions/")
    wanted = await decoders.call(read_document, await read_body(request, settings.max_body_bytes), OpenRequest)
    return _opened(
        await sessions.opening.open(wanted.model, wanted.memory_size, idempotency_key), sessions, "sessions/"
    )


@router.get("/sessions", response_model=list[SessionAnswer], tags=["sessions"])
async def list_sessions(
    sessions: TheSessions, model: str | None = None, limit: Annotated[int, Query(ge=1, le=10_000)] = 100
) -> Response:
    """List open sessions, the most recently used first."""
    return answer([_session(session, sessions) for session in await sessions.all(model, limit)])


@router.get("/sessions/{session}", response_model=SessionAnswer, tags=["sessions"])
async def describe_session(session: str, sessions: TheSessions) -> Response:
    """Describe one session: its model, the step reached, and when it expires."""
    return answer(_session((await sessions.turns.find(session)).info, sessions))


@router.delete("/sessions/{session}", status_code=204, response_class=Response, tags=["sessions"])
async def delete_session(session: str, sessions: TheSessions) -> Response:
    """End a session."""
    await sessions.ending.delete(session)
    return Response(status_code=204)


@hot(
    router,
    STEPS_PATH,
    response_model=StepsAnswer,
    tags=["sessions"],
    openapi_extra=documented_body(StepsRequest),
)
async def step_session(request: Request, session: str) -> Response:
    """Step a session over a sequence; concurrent requests are served one after the other."""
    _, sessions, settings, decoders = services(request)
    body = await read_body(request, settings.max_body_bytes)
    found = await sessions.turns.find(session)
    steps = steps_of(found, *await decoders.call(read_steps, body, found.model.inputs, settings.max_steps))
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
    _, sessions, settings, decoders = services(request)
    binary = b"msgpack" in dict(request.scope["headers"]).get(b"content-type", b"").lower()
    body = await read_body(request, settings.max_body_bytes)
    limits = (settings.max_steps, settings.sequences_at_once)
    protocol = MSGPACK_PROTOCOL if binary else JSON_PROTOCOL
    wanted = await decoders.call(read_many, body, protocol, ManyStepsRequest, *limits)
    asked = asked_of(wanted, await sessions.turns.find_all(wanted.sessions), settings.max_trace_bytes)
    told = document(wanted, await sessions.stepping.step_all(asked))
    return Response(encode_msgpack(told), media_type=MSGPACK) if binary else answer_numbers(told)


@router.post("/sessions/{session}/reset", response_model=SessionAnswer, tags=["time travel"])
async def reset_session(session: str, sessions: TheSessions) -> Response:
    """Put a session back to before its first step; until its next step, rewind can undo that."""
    return answer(_session(await sessions.time_travel.reset(await sessions.turns.find(session)), sessions))


@router.post(
    "/sessions/{session}/rewind",
    response_model=SessionAnswer,
    tags=["time travel"],
    openapi_extra=documented_body(RewindRequest),
)
async def rewind_session(session: str, body: Body, sessions: TheSessions, decoders: TheDecoders) -> Response:
    """Put a session back to a step that it was at; until its next step, it can also be put forward again."""
    wanted = await decoders.call(read_document, body, RewindRequest)
    return answer(
        _session(await sessions.time_travel.rewind(await sessions.turns.find(session), wanted.step), sessions)
    )


@router.post(
    "/sessions/{session}/fork",
    status_code=201,
    response_model=SessionAnswer,
    tags=["time travel"],
    responses=OPENED,
    openapi_extra=documented_body(ForkRequest, required=False),
)
async def fork_session(
    session: str,
    body: Body,
    sessions: TheSessions,
    decoders: TheDecoders,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Open a session that shares the past of another, up to where that one is or to an earlier step."""
    wanted = await decoders.call(read_document, body or b"{}", ForkRequest)
    return _opened(await sessions.opening.fork(session, wanted.step, idempotency_key), sessions, "../")


@router.get(
    "/sessions/{session}/snapshot",
    tags=["time travel"],
    response_class=Response,
    responses={200: {"content": {SAFETENSORS: BINARY}, "description": "for POST /sessions, here or on another server"}},
)
async def snapshot_session(
    session: str, sessions: TheSessions, step: Annotated[int | None, Query(ge=0, le=LARGEST)] = None
) -> Response:
    """Return the session in a file, as it is or as it was at a step."""
    return answer_file(await sessions.time_travel.snapshot(await sessions.turns.find(session), step))


@router.get(
    "/sessions/{session}/recording",
    tags=["time travel"],
    response_class=Response,
    responses={200: {"content": {JSON_LINES: {"schema": {"type": "string"}}}, "description": "a line for each step"}},
)
async def read_recording(
    session: str,
    sessions: TheSessions,
    start: Annotated[int | None, Query(alias="from", ge=0, le=LARGEST, description="the step before the first")] = None,
    stop: Annotated[int | None, Query(alias="to", ge=0, le=LARGEST, description="the last step")] = None,
    trace: Annotated[str, Query(description="names of traces, separated by commas")] = "",
) -> Response:
    """Stream the inputs and outputs of a session's steps, the outputs computed again."""
    found = await sessions.turns.find(session)
    names = found.model.traces(trace.split(",") if trace else [])
    found.model.check_trace_bytes(names, CHUNK_STEPS, found.memory_size)
    pieces = await sessions.time_travel.recording(found, start, stop, names)
    first = await anext(pieces, None)  # before the answer begins: an error here has a status of its own
    return StreamingResponse(_lines(first, pieces), media_type=JSON_LINES)


@router.get(
    "/sessions/{session}/state",
    response_model=StateAnswer,
    tags=["sessions"],
    responses={200: {"content": {SAFETENSORS: BINARY}, "description": "JSON, or safetensors by Accept"}},
)
async def read_state(
    session: str,
    sessions: TheSessions,
    names: Annotated[str | None, Query(description="leaves, separated by commas; all without it")] = None,
    step: Annotated[int | None, Query(ge=0, le=LARGEST, description="any step that is kept; else the last")] = None,
    accept: Annotated[str, Header(include_in_schema=False)] = "application/json",
) -> Response:
    """Return what a session has in memory, and where its heads are."""
    found = await sessions.turns.find(session)
    model = found.model
    wanted = model.leaves(names.split(",") if names is not None else list(model.spec.state))
    reached, state = await sessions.time_travel.state(found, step)
    chosen = {name: state[name] for name in wanted}
    if SAFETENSORS in accept.lower():
        told = {"session": session, "model": model.name, "step": str(reached)}
        if array_bytes(chosen) < LARGE:
            return answer_file(safetensors.numpy.save(chosen, told))
        return answer_file(await asyncio.to_thread(safetensors.numpy.save, chosen, told))
    return answer_numbers({"id": session, "step": reached, "state": chosen})


@router.get("/stream", include_in_schema=False)
@router.get("/streams", include_in_schema=False)
@router.get("/sessions/{session}/stream", include_in_schema=False)
async def refuse_plain_stream() -> Response:
    """Say that a stream needs a WebSocket: a proxy that does not pass upgrades on asks like this."""
    raise UpgradeRequired(
        "streams are WebSockets, and this request is none: connect with a WebSocket client; "
        "a proxy in between must pass on the headers Upgrade and Connection",
        expected="a WebSocket handshake",
        got="a request without an upgrade",
    )


@router.get("/healthz", response_model=HealthAnswer, tags=["operation"])
async def health() -> Response:
    """Answer while the process lives."""
    return answer({"status": "ok"})


@router.get("/readyz", response_model=ReadyAnswer, tags=["operation"])
async def ready(models: TheModels, sessions: TheSessions, settings: TheSettings) -> Response:
    """Answer 200 when the store could be read and every model has just taken a step, else 503 with what did not."""
    asked = {"the store": sessions.probe(), **{model.name: model.engine.probe() for model in models}}
    probes = (asyncio.wait_for(probe, settings.ready_timeout) for probe in asked.values())
    outcomes = await asyncio.gather(*probes, return_exceptions=True)
    silent = [name for name, outcome in zip(asked, outcomes, strict=True) if outcome is not None]
    if silent:
        raise Unavailable(f"no answer came within {settings.ready_timeout:g} s from {', '.join(silent)}")
    return answer({"status": "ready", "models": [model.name for model in models], "failed": models.failures})


@router.get("/metrics", response_class=PlainTextResponse, tags=["operation"])
async def prometheus(metrics: TheMetrics, models: TheModels, sessions: TheSessions) -> Response:
    """Return metrics for Prometheus."""
    for model in models:
        metrics.sequences.labels(model.name).set(model.engine.sequences + sessions.turns.waiting(model.name))
        metrics.resident.labels(model.name).set(sessions.resident(model.name))
    return Response(metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _opened(session: SessionInfo, sessions: SessionService, place: str) -> Response:
    """Return the answer for a session that was opened; place: of all sessions, relative to the URL of the request."""
    response = answer(_session(session, sessions), 201)
    response.headers["Location"] = f"{place}{session.id}"
    return response


async def _lines(first: Piece | None, rest: AsyncIterator[Piece]) -> AsyncIterator[bytes]:
    """Yield a line for each step, several at a time, and, where it breaks off, one with the error."""
    if first is None:
        return
    try:
        async for piece in _chained(first, rest):
            async for lines in in_turns(_piece_lines(piece)):
                yield lines
    except EngramError as error:
        yield encode_json({"error": error.problem()}) + b"\n"


async def _chained(first: Piece, rest: AsyncIterator[Piece]) -> AsyncIterator[Piece]:
    yield first
    async for piece in rest:
        yield piece


def _piece_lines(piece: Piece) -> Iterator[bytes]:
    """Yield the lines of the steps, as many at a time as have PIECE_BYTES of numbers."""
    step = piece.inputs[0].nbytes + array_bytes({**piece.result.trace, "": piece.result.outputs}) // len(piece.inputs)
    rows = max(1, PIECE_BYTES // step)
    for start in range(0, len(piece.inputs), rows):
        yield b"".join(_step_line(piece, row) for row in range(len(piece.inputs))[start : start + rows])


def _step_line(piece: Piece, row: int) -> bytes:
    line = {
        "step": piece.step + row + 1,
        "seq": piece.seqs[row],
        "inputs": piece.inputs[row],
        "outputs": piece.result.outputs[row],
        "trace": {name: values[row] for name, values in piece.result.trace.items()},
    }
    return encode_json(line) + b"\n"


def _session(session: SessionInfo, sessions: SessionService) -> dict[str, Any]:
    return {
        "id": session.id,
        "model": session.model,
        "memory_size": session.memory_size,
        "step": session.step,
        "seq": session.seq,
        "latest": session.latest,
        "oldest": session.oldest,
        "opened": session.opened,
        "idle_seconds": sessions.idle_seconds(session),
        "expires_in": sessions.expires_in(session),
    }


def _batch(results: list[Result]) -> dict[str, Any]:
    names = results[0].trace
    return {
        "outputs": [result.outputs for result in results],
        "trace": {name: [result.trace[name] for result in results] for name in names},
        "steps": [len(result.outputs) for result in results],
    }
