"""Route: run sequences without a session."""

from typing import Any

from fastapi import APIRouter, Request, Response

from app.api.answers import answer_numbers
from app.api.deps import read_body, services
from app.api.disconnects import unless_disconnected
from app.api.hot import hot
from app.api.leases import hold_answer
from app.api.openapi import PROBLEMS, documented_body
from app.api.requests import read_infer
from app.api.schemas import InferAnswer, InferRequest
from app.api.steps import INFER_PATH, output_bytes, sequence_document, trace_of
from app.engine.run import Result

router = APIRouter(responses=PROBLEMS)


@hot(router, INFER_PATH, response_model=InferAnswer, tags=["inference"], openapi_extra=documented_body(InferRequest))
async def infer(request: Request) -> Response:
    """Run one sequence, or a batch of sequences of any lengths, each from a fresh state that is not kept."""
    models, sessions, settings, decoders, caller, budgets = services(request)
    body = await read_body(request, settings.max_body_bytes, budgets.uploads)
    limits = (settings.max_steps, settings.sequences_at_once)
    wanted, (inputs, batched) = await decoders.call(read_infer, body, models.inputs, *limits)
    model = models.get(wanted.model)
    steps = sum(map(len, inputs))
    trace, force = trace_of(model, wanted, steps), model.force(wanted.force)
    hold_answer(request, budgets, output_bytes(model, steps), model.trace_bytes(trace, steps, wanted.memory_size))
    caller.take_steps(inputs)
    running = sessions.inference.run(model, inputs, trace, wanted.memory_size, force)
    results = await unless_disconnected(request, running)
    return answer_numbers(_batch(results) if batched else sequence_document(results[0]))


def _batch(results: list[Result]) -> dict[str, Any]:
    names = results[0].trace
    return {
        "outputs": [result.outputs for result in results],
        "trace": {name: [result.trace[name] for result in results] for name in names},
        "steps": [len(result.outputs) for result in results],
    }
