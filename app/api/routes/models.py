"""Routes: the models that are served."""

from fastapi import APIRouter, Response

from app.api.answers import answer
from app.api.deps import TheModels
from app.api.openapi import PROBLEMS
from app.api.schemas import ModelAnswer

router = APIRouter(responses=PROBLEMS)


@router.get("/models", response_model=list[ModelAnswer], tags=["models"])
async def list_models(models: TheModels) -> Response:
    """List the models that are served."""
    return answer([model.describe() for model in models])


@router.get("/models/{name}", response_model=ModelAnswer, tags=["models"])
async def describe_model(name: str, models: TheModels) -> Response:
    """Describe one model: sizes, heads, controller, back end, schemas of state and traces, measured errors."""
    return answer(models.get(name).describe())
