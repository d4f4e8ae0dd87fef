"""Requests to step one session, or to run one sequence: their checks, and the documents of the answers."""

from collections.abc import Sequence
from typing import Any

from app.api.requests import InferOptions, StepOptions
from app.backends.base import NUMBER_BYTES, Array
from app.catalogue import ServedModel
from app.engine.run import Result
from app.sessions.session import Session, Stepped, Steps

STEPS_PATH = "/sessions/{session}/steps"
INFER_PATH = "/infer"


def steps_of(session: Session, wanted: StepOptions, inputs: Array) -> Steps:
    """Return the steps of a request that was read. Raises UnknownName."""
    return Steps(inputs, session.model.traces(wanted.trace), wanted.if_step)


def trace_of(model: ServedModel, wanted: InferOptions, steps: int) -> list[str]:
    """Return the names of the traces that a request to run sequences asks for; steps: of all sequences together.

    Raises InvalidRequest and UnknownName if the model cannot compute the request.
    """
    model.memory.check(wanted.memory_size)
    trace = model.traces(wanted.trace)
    model.check_trace_bytes(trace, steps, wanted.memory_size)
    return trace


def output_bytes(model: ServedModel, steps: int) -> int:
    """Return the bytes of the outputs of `steps` steps."""
    return NUMBER_BYTES * steps * model.spec.output_size


def answer_bytes(model: ServedModel, steps: int, trace: Sequence[str], memory_size: int | None) -> int:
    """Return the bytes of the numbers in the answer to a request of `steps` steps."""
    return output_bytes(model, steps) + (model.trace_bytes(trace, steps, memory_size) if trace else 0)


def steps_document(stepped: Stepped) -> dict[str, Any]:
    """Return the answer to a request to step."""
    result, step = stepped
    return {"outputs": result.outputs, "trace": result.trace, "step": step}


def sequence_document(result: Result) -> dict[str, Any]:
    """Return the answer to a request to run one sequence."""
    return {"outputs": result.outputs, "trace": result.trace, "steps": len(result.outputs)}
