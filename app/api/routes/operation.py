"""Routes: the health and the metrics of the server."""

from collections import Counter
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import PlainTextResponse

from app.api.answers import answer
from app.api.deps import IsDraining, MaySeeAll, TheMetrics, TheModels, TheSessions, TheSettings
from app.api.openapi import PROBLEMS
from app.api.readiness import check_parts, not_ready
from app.api.schemas import HealthAnswer, ReadyAnswer
from app.errors import Unavailable, stopping

router = APIRouter(responses=PROBLEMS)


@router.get("/healthz", response_model=HealthAnswer, tags=["operation"])
async def health() -> Response:
    """Answer while the process lives."""
    return answer({"status": "ok"})


@router.get("/readyz", response_model=ReadyAnswer, tags=["operation"])
async def ready(
    models: TheModels,
    sessions: TheSessions,
    settings: TheSettings,
    sees_all: MaySeeAll,
    is_draining: IsDraining,
    model: Annotated[str | None, Query(description="only this model, in all versions that run")] = None,
    store: Annotated[str | None, Query(description="only the store; the value is not read")] = None,
) -> Response:
    """Answer 200 when the store could be read and every model has just taken a step, else 503 with what did not.

    A server that is to stop answers 503 before it stops, while it drains.
    """
    if is_draining:
        raise stopping()
    checks = await check_parts(models, sessions, settings.ready_timeout, model, store is not None)
    is_known = model is None or any(check.get("model") == model for check in checks)
    is_ready = is_known and all(check["ready"] for check in checks)
    if not sees_all:
        if not is_ready:
            raise Unavailable("the server is not ready")
        return answer({"status": "ready"})
    if not is_known:
        models.get(str(model))  # raises ModelNotFound
    if not is_ready:
        raise Unavailable(not_ready(checks, settings.ready_timeout), checks=checks)
    served = [model.name for model in models]
    return answer({"status": "ready", "models": served, "failed": models.failures, "checks": checks})


@router.get("/metrics", response_class=PlainTextResponse, tags=["operation"])
async def prometheus(metrics: TheMetrics, models: TheModels, sessions: TheSessions) -> Response:
    """Return metrics for Prometheus."""
    sequences: Counter[str] = Counter()
    for model in models.all:
        sequences[model.name] += model.engine.sequences
    for gauge in (metrics.sequences, metrics.resident):
        gauge.clear()  # of models that are no longer served
    for name, count in sequences.items():
        metrics.sequences.labels(name).set(count + sessions.turns.waiting(name))
        metrics.resident.labels(name).set(sessions.resident(name))
    return Response(metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")
