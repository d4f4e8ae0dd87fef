"""Routes for those who run the server."""

import dataclasses

from fastapi import APIRouter, Response

from app.api.answers import answer
from app.api.deps import TheReload
from app.api.openapi import PROBLEMS
from app.api.schemas import ReloadAnswer

router = APIRouter(responses=PROBLEMS)


@router.post("/admin/reload", response_model=ReloadAnswer, tags=["admin"])
async def reload_checkpoints(reload: TheReload) -> Response:
    """Load the directory of checkpoints again; open sessions stay on the version that they began with."""
    return answer(dataclasses.asdict(await reload()))
