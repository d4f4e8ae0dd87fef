"""Routes: the models that are served."""

import asyncio
from typing import Annotated, Any

import safetensors.numpy
from fastapi import APIRouter, Header, Query, Request, Response

from app.api.answers import answer, answer_file, answer_numbers
from app.api.deps import ModelName, TheModels
from app.api.media import SAFETENSORS, accepts
from app.api.openapi import BINARY, PROBLEMS
from app.api.schemas import ModelAnswer, SampleAnswer
from app.sampling import sample_of
from models.episodes.base import MOST_SEED

router = APIRouter(responses=PROBLEMS)

SIZES: dict[str, Any] = {
    "name": "sizes",
    "in": "query",
    "style": "form",
    "explode": True,
    "description": "sizes and choices of the sample, by the names in `settings`, such as length=20",
    "schema": {"type": "object", "additionalProperties": {"type": ["integer", "string"]}},
}
"""The documentation of parameters whose names depend on the task."""


@router.get("/models", response_model=list[ModelAnswer], tags=["models"])
async def list_models(models: TheModels) -> Response:
    """List the models that are served."""
    return answer([model.describe() for model in models])


@router.get("/models/{name}", response_model=ModelAnswer, tags=["models"])
async def describe_model(name: ModelName, models: TheModels) -> Response:
    """Describe one model: sizes, heads, controller, back end, schemas of state and traces, measured errors."""
    return answer(models.get(name).describe())


@router.get(
    "/models/{name}/sample",
    response_model=SampleAnswer,
    tags=["models"],
    responses={200: {"content": {SAFETENSORS: BINARY}, "description": "JSON, or safetensors by Accept"}},
    openapi_extra={"parameters": [SIZES]},
)
async def draw_sample(
    name: ModelName,
    request: Request,
    models: TheModels,
    seed: Annotated[int, Query(ge=0, le=MOST_SEED, description="the same seed and sizes give the same sample")] = 0,
    accept: Annotated[str, Header(include_in_schema=False)] = "application/json",
) -> Response:
    """Return a sample: a sequence of the model's task with its answer, its recording, or inputs that it takes."""
    asked = {key: value for key, value in request.query_params.items() if key != "seed"}
    sample = await asyncio.to_thread(sample_of, models.get(name), seed, asked)
    if accepts(accept, SAFETENSORS):
        return answer_file(safetensors.numpy.save(sample.tensors()))
    return answer_numbers(sample.document())
