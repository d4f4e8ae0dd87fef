"""Routes: the health and the metrics of the server."""

import asyncio

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from app.api.answers import answer
from app.api.deps import TheMetrics, TheModels, TheSessions, TheSettings
from app.api.openapi import PROBLEMS
from app.api.schemas import HealthAnswer, ReadyAnswer
from app.errors import Unavailable

router = APIRouter(responses=PROBLEMS)


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
