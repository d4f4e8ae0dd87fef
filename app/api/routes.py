"""The HTTP interface. Routes hold no logic: they parse, ask a service, and answer."""

import asyncio
from typing import Annotated, Any

import safetensors.numpy
from fastapi import APIRouter, Header, Query, Request, Response

from app.api.codec import encode_json
from app.api.deps import Body, TheMetrics, TheModels, TheSessions, TheSettings, unless_disconnected
from app.api.inputs import parse_sequence, parse_sequences
from app.api.schemas import (
    InferAnswer,
    InferRequest,
    ModelAnswer,
    OpenRequest,
    ProblemAnswer,
    SessionAnswer,
    StateAnswer,
    StepsAnswer,
    StepsRequest,
    parse,
)
from app.engine.run import Result
from app.errors import Unavailable
from app.sessions import Session, SessionService

SAFETENSORS = "application/x-safetensors"

PROBLEMS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ProblemAnswer, "description": "What is wrong with the request, and where"},
    "503": {"model": ProblemAnswer, "description": "Too busy, or stopping: try again after Retry-After"},
}

router = APIRouter(responses=PROBLEMS)


def documented_body(model: type[Any]) -> dict[str, Any]:
    """Return what /docs shall say of a body that the route reads by itself."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": model.model_json_schema()}}}}


def answer(document: Any, status: int = 200) -> Response:
    """Return a document, with arrays anywhere in it, as JSON."""
    return Response(encode_json(document), status, media_type="application/json")


@router.get("/models", response_model=list[ModelAnswer], tags=["models"])
async def list_models(models: TheModels) -> Response:
    """List the models that are served."""
    return answer([model.describe() for model in models])


@router.get("/models/{name}", response_model=ModelAnswer, tags=["models"])
async def describe_model(name: str, models: TheModels) -> Response:
    """Describe one model: sizes, heads, controller, back end, schemas of state and traces, measured errors."""
    return answer(models.get(name).describe())


@router.post("/infer", response_model=InferAnswer, tags=["inference"], openapi_extra=documented_body(InferRequest))
async def infer(request: Request, body: Body, models: TheModels, settings: TheSettings) -> Response:
    """Run one sequence, or a batch of sequences of any lengths, each from a fresh state that is not kept."""
    wanted = parse(InferRequest, body)
    model = models.get(wanted.model)
    model.memory.check(wanted.memory_size)
    trace = model.traces(wanted.trace)
    limits = (settings.max_steps, min(settings.max_sequences, settings.max_queue))
    sequences, batched = parse_sequences(wanted.inputs, model.inputs, *limits)
    model.check_trace_bytes(trace, sum(map(len, sequences)), wanted.memory_size)
    results = await unless_disconnected(request, model.engine.infer(sequences, trace, wanted.memory_size))
    return answer(_batch(results) if batched else _single(results[0]))


@router.post(
    "/sessions",
    status_code=201,
    response_model=SessionAnswer,
    tags=["sessions"],
    openapi_extra=documented_body(OpenRequest),
)
async def open_session(body: Body, sessions: TheSessions) -> Response:
    """Open a session: a state of its own that stays on the server between requests."""
    wanted = parse(OpenRequest, body)
    session = await sessions.open(wanted.model, wanted.memory_size)
    response = answer(_session(session, sessions), 201)
    response.headers["Location"] = f"/sessions/{session.id}"
    return response


@router.get("/sessions", response_model=list[SessionAnswer], tags=["sessions"])
async def list_sessions(
    sessions: TheSessions, model: str | None = None, limit: Annotated[int, Query(ge=1, le=10_000)] = 100
) -> Response:
    """List open sessions, the most recently used first."""
    found = [session for session in sessions.all() if model in (None, session.model.name)]
    return answer([_session(session, sessions) for session in found[:limit]])


@router.get("/sessions/{session}", response_model=SessionAnswer, tags=["sessions"])
async def describe_session(session: str, sessions: TheSessions) -> Response:
    """Describe one session: its model, the step reached, and when it expires."""
    return answer(_session(sessions.get(session), sessions))


@router.delete("/sessions/{session}", status_code=204, response_class=Response, tags=["sessions"])
async def delete_session(session: str, sessions: TheSessions) -> Response:
    """End a session."""
    await sessions.delete(session)
    return Response(status_code=204)


@router.post(
    "/sessions/{session}/steps",
    response_model=StepsAnswer,
    tags=["sessions"],
    openapi_extra=documented_body(StepsRequest),
)
async def step_session(session: str, body: Body, sessions: TheSessions, settings: TheSettings) -> Response:
    """Step a session over a sequence; concurrent requests are served one after the other."""
    wanted = parse(StepsRequest, body)
    model = sessions.get(session).model
    trace = model.traces(wanted.trace)
    inputs = parse_sequence(wanted.inputs, model.inputs, settings.max_steps)
    result, step = await sessions.step(session, inputs, trace, wanted.if_step)
    return answer({"outputs": result.outputs, "trace": result.trace, "step": step})


@router.post("/sessions/{session}/reset", response_model=SessionAnswer, tags=["sessions"])
async def reset_session(session: str, sessions: TheSessions) -> Response:
    """Put a session back to before its first step."""
    return answer(_session(await sessions.reset(session), sessions))


@router.get(
    "/sessions/{session}/state",
    response_model=StateAnswer,
    tags=["sessions"],
    responses={200: {"content": {SAFETENSORS: {}}, "description": "JSON, or safetensors by Accept"}},
)
async def read_state(
    session: str,
    sessions: TheSessions,
    names: Annotated[str | None, Query(description="leaves, separated by commas; all without it")] = None,
    step: Annotated[int | None, Query(ge=0, description="the step that the session must be at")] = None,
    accept: Annotated[str, Header()] = "application/json",
) -> Response:
    """Return what a session has in memory, and where its heads are."""
    model = sessions.get(session).model
    wanted = model.leaves(names.split(",") if names is not None else list(model.spec.state))
    reached, state = await sessions.state(session, step)
    chosen = {name: state[name] for name in wanted}
    if SAFETENSORS in accept.lower():
        data = safetensors.numpy.save(chosen, {"session": session, "model": model.name, "step": str(reached)})
        return Response(data, media_type=SAFETENSORS)
    return answer({"id": session, "step": reached, "state": chosen})


@router.get("/healthz", tags=["operation"])
async def health() -> Response:
    """Answer while the process lives."""
    return answer({"status": "ok"})


@router.get("/readyz", tags=["operation"])
async def ready(models: TheModels, settings: TheSettings) -> Response:
    """Answer 200 when every model has just taken a step, else 503 with the models that did not."""
    probed = list(models)
    probes = (asyncio.wait_for(model.engine.probe(), settings.ready_timeout) for model in probed)
    outcomes = await asyncio.gather(*probes, return_exceptions=True)
    silent = [model.name for model, outcome in zip(probed, outcomes, strict=True) if outcome is not None]
    if silent:
        raise Unavailable(f"no step was possible within {settings.ready_timeout:g} s for {', '.join(silent)}")
    return answer({"status": "ready", "models": [model.name for model in probed], "failed": models.failures})


@router.get("/metrics", tags=["operation"])
async def prometheus(metrics: TheMetrics, models: TheModels, sessions: TheSessions) -> Response:
    """Return metrics for Prometheus."""
    for model in models:
        metrics.sequences.labels(model.name).set(model.engine.sequences + sessions.waiting(model.name))
    return Response(metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _session(session: Session, sessions: SessionService) -> dict[str, Any]:
    return {
        "id": session.id,
        "model": session.model.name,
        "memory_size": session.slot.memory_size,
        "step": session.step,
        "opened": session.opened,
        "idle_seconds": sessions.idle_seconds(session),
        "expires_in": sessions.expires_in(session),
    }


def _single(result: Result) -> dict[str, Any]:
    return {"outputs": result.outputs, "trace": result.trace, "steps": len(result.outputs)}


def _batch(results: list[Result]) -> dict[str, Any]:
    names = results[0].trace
    return {
        "outputs": [result.outputs for result in results],
        "trace": {name: [result.trace[name] for result in results] for name in names},
        "steps": [len(result.outputs) for result in results],
    }
