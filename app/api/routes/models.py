"""Routes: the models that are served."""

from typing import Annotated

import safetensors.numpy
from fastapi import APIRouter, Header, Response

from app.api.answers import answer, answer_file, answer_numbers
from app.api.deps import TheModels
from app.api.media import SAFETENSORS, accepts
from app.api.openapi import BINARY, PROBLEMS
from app.api.schemas import ModelAnswer, SampleAnswer

router = APIRouter(responses=PROBLEMS)


@router.get("/models", response_model=list[ModelAnswer], tags=["models"])
async def list_models(models: TheModels) -> Response:
    """List the models that are served."""
    return answer([model.describe() for model in models])


@router.get("/models/{name}", response_model=ModelAnswer, tags=["models"])
async def describe_model(name: str, models: TheModels) -> Response:
    """Describe one model: sizes, heads, controller, back end, schemas of state and traces, measured errors."""
    return answer(models.get(name).describe())


@router.get(
    "/models/{name}/sample",
    response_model=SampleAnswer,
    tags=["models"],
    responses={200: {"content": {SAFETENSORS: BINARY}, "description": "JSON, or safetensors by Accept"}},
)
async def read_sample(
    name: str,
    models: TheModels,
    accept: Annotated[str, Header(include_in_schema=False)] = "application/json",
) -> Response:
    """Return a recording of inputs to try a model with, if its card has `sample` true."""
    inputs = models.get(name).recorded_inputs()
    if accepts(accept, SAFETENSORS):
        return answer_file(safetensors.numpy.save({"inputs": inputs}))
    return answer_numbers({"inputs": inputs})
