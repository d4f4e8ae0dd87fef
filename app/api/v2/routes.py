"""The routes under /v2, each of a model also under its versions."""

from collections.abc import Awaitable, Callable
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Depends, Path, Request, Response

from app.api.answers import answer
from app.api.deps import Body, IsDraining, MaySeeAll, ModelName, TheModels, TheSessions, TheSettings
from app.api.hot import hot
from app.api.media import OCTETS
from app.api.openapi import BINARY, ERRORS, documented_body
from app.api.readiness import check_parts, not_ready
from app.api.requests import read_document
from app.api.v2 import inference
from app.api.v2.answers import JSON_BYTES
from app.api.v2.documents import config_document, index_document, metadata_document, server_document
from app.api.v2.schemas import (
    ConfigAnswer,
    IndexedModel,
    IndexRequest,
    LiveAnswer,
    MetadataAnswer,
    ServerAnswer,
    StatisticsAnswer,
    V2InferAnswer,
    V2InferRequest,
    V2ReadyAnswer,
)
from app.api.v2.statistics import Statistics
from app.api.v2.versions import SEQUENCES, Version, version_of
from app.catalogue import ServedModel
from app.errors import Unavailable, stopping

MODEL = "/v2/models/{name}"

router = APIRouter(responses=ERRORS, tags=["open inference protocol"])

ModelVersion = Annotated[str, Path(examples=[SEQUENCES.name])]

HEAD = {
    "name": JSON_BYTES,
    "in": "header",
    "schema": {"type": "integer", "minimum": 1},
    "description": "the bytes of the JSON, where tensors in binary stand behind it",
}

BINARY_ANSWER = {"content": {OCTETS: BINARY}, "description": "JSON, or JSON with tensors in binary behind it"}


async def _statistics(request: Request) -> Statistics:
    here: inference.OpenInference = request.app.state.open_inference
    return here.statistics


TheStatistics = Annotated[Statistics, Depends(_statistics)]


@router.get("/v2", response_model=ServerAnswer)
async def describe_server() -> Response:
    """Describe the server: its name, version, and the extensions of the protocol that it has."""
    return answer(server_document())


@router.get("/v2/health/live", response_model=LiveAnswer)
async def live() -> Response:
    """Answer while the process lives."""
    return answer({"live": True})


@router.get("/v2/health/ready", response_model=V2ReadyAnswer)
async def ready(
    models: TheModels, sessions: TheSessions, settings: TheSettings, sees_all: MaySeeAll, is_draining: IsDraining
) -> Response:
    """Answer 200 when the store could be read and every model has just taken a step, else 503."""
    if is_draining:
        raise stopping()
    checks = await check_parts(models, sessions, settings.ready_timeout)
    if not all(check["ready"] for check in checks):
        raise Unavailable(not_ready(checks, settings.ready_timeout) if sees_all else "the server is not ready")
    return answer({"ready": True})


@router.get("/v2/models/stats", response_model=StatisticsAnswer)
async def all_statistics(models: TheModels, statistics: TheStatistics) -> Response:
    """Return the statistics of all models since the start."""
    return answer({"model_stats": [statistics.document(model.name, SEQUENCES.name) for model in models]})


@router.post(
    "/v2/repository/index",
    response_model=list[IndexedModel],
    openapi_extra=documented_body(IndexRequest, required=False),
)
async def index(body: Body, models: TheModels) -> Response:
    """List the models that are served, and those that could not be loaded."""
    return answer(index_document(models, read_document(body or b"{}", IndexRequest).ready))


class _Named(NamedTuple):
    """The model and the version of a path."""

    model: ServedModel
    version: Version


async def _on_offer(models: TheModels, name: ModelName) -> _Named:
    return _Named(models.get(name), SEQUENCES)


async def _in_version(models: TheModels, name: ModelName, version: ModelVersion) -> _Named:
    model = models.get(name)
    return _Named(model, version_of(model, version))


def _add_routes(path: str, find: Callable[..., Awaitable[_Named]]) -> None:
    """Add the routes of a model, which `find` finds by the parameters of their path."""

    @router.get(path, response_model=MetadataAnswer)
    async def describe_model(named: Annotated[_Named, Depends(find)]) -> Response:
        """Describe the tensors of a model; a size of -1 is chosen by each request."""
        return answer(metadata_document(*named))

    @router.get(f"{path}/ready", response_model=V2ReadyAnswer)
    async def model_is_ready(
        named: Annotated[_Named, Depends(find)], models: TheModels, sessions: TheSessions, settings: TheSettings
    ) -> Response:
        """Answer 200 when the model has just taken a step, else 503."""
        checks = await check_parts(models, sessions, settings.ready_timeout, named.model.name)
        if not all(check["ready"] for check in checks):
            raise Unavailable(not_ready(checks, settings.ready_timeout))
        return answer({"name": named.model.name, "ready": True})

    @router.get(f"{path}/config", response_model=ConfigAnswer)
    async def configure_model(named: Annotated[_Named, Depends(find)], settings: TheSettings) -> Response:
        """Return the configuration of a model, with the fields of Triton's."""
        return answer(config_document(*named, settings))

    @router.get(f"{path}/stats", response_model=StatisticsAnswer)
    async def model_statistics(named: Annotated[_Named, Depends(find)], statistics: TheStatistics) -> Response:
        """Return the statistics of a model since the start."""
        return answer({"model_stats": [statistics.document(named.model.name, named.version.name)]})


_add_routes(MODEL, _on_offer)
_add_routes(f"{MODEL}/versions/{{version}}", _in_version)

DOCUMENTED = {
    "response_model": V2InferAnswer,
    "responses": {200: BINARY_ANSWER},
    "openapi_extra": documented_body(V2InferRequest, {OCTETS: BINARY}) | {"parameters": [HEAD]},
}


@hot(router, f"{MODEL}/infer", **DOCUMENTED)
async def infer(request: Request, name: ModelName) -> Response:
    """Step a sequence that the request names, or run sequences whose state is not kept."""
    return await inference.infer(request, name)


@hot(router, f"{MODEL}/versions/{{version}}/infer", **DOCUMENTED)
async def infer_in_version(request: Request, name: ModelName, version: ModelVersion) -> Response:
    """Step a sequence that the request names, or run sequences whose state is not kept."""
    return await inference.infer(request, name, version)
