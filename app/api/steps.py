"""Requests to step one session: what is asked of it, and the document that answers."""

from typing import Any

from app.api import requests
from app.backends.base import NUMBER_BYTES, Array
from app.session import Session, Stepped, Steps

STEPS_PATH = "/sessions/{session}/steps"


def steps_of(session: Session, wanted: requests.Steps, inputs: Array) -> Steps:
    """Return what a session is asked by a request that was read. Raises UnknownName."""
    return Steps(inputs, session.model.traces(wanted.trace), wanted.if_step)


def answer_bytes(session: Session, steps: Steps) -> int:
    """Return the bytes of the numbers in the answer to a request to step."""
    count, model = len(steps.inputs), session.model
    outputs = NUMBER_BYTES * count * model.spec.output_size
    return outputs + (model.trace_bytes(steps.trace, count, session.memory_size) if steps.trace else 0)


def steps_document(stepped: Stepped) -> dict[str, Any]:
    """Return the answer to a request to step."""
    result, step = stepped
    return {"outputs": result.outputs, "trace": result.trace, "step": step}
