"""Examples of requests and answers, for the OpenAPI document: of a session with the model that ships first."""

from typing import Any

from app.api.schemas import EXAMPLE_INPUTS, EXAMPLE_MODEL

SESSION = {
    "id": "Yb4hC2m0R3GQ4W1Y6sZ8Zw",
    "model": EXAMPLE_MODEL,
    "memory_size": 32,
    "step": 2,
    "seq": None,
    "latest": 2,
    "oldest": 0,
    "opened": 1767225600.0,
    "idle_seconds": 0.5,
    "expires_in": 3599.5,
    "force": None,
}
OUTPUTS = [[0.43, 0.4, 0.45, 0.45, 0.46, 0.45, 0.4, 0.45], [0.53, 0.35, 0.6, 0.55, 0.59, 0.4, 0.35, 0.19]]
OUTPUT_DATA = [number for step in OUTPUTS for number in step]
TRACE = {"write_gate": [[0.94], [1.0]]}

STEPS = {"inputs": EXAMPLE_INPUTS, "trace": ["write_gate"]}
STEPPED = {"outputs": OUTPUTS, "trace": TRACE, "step": 2}

V2_INFER = {
    "id": "first",
    "parameters": {"sequence_id": 42, "sequence_start": True},
    "inputs": [
        {
            "name": "inputs",
            "datatype": "FP32",
            "shape": [1, len(EXAMPLE_INPUTS), len(EXAMPLE_INPUTS[0])],
            "data": [number for step in EXAMPLE_INPUTS for number in step],
        }
    ],
    "outputs": [{"name": "outputs"}, {"name": "write_gate"}],
}
V2_INFERRED = {
    "model_name": EXAMPLE_MODEL,
    "model_version": "1",
    "id": "first",
    "parameters": {
        "sequence_id": 42,
        "sequence_start": True,
        "sequence_end": False,
        "sequence_restarted": False,
        "session": "sequence-42-Yb4hC2m0R3GQ4W1Y6sZ8Zw",
        "step": 2,
    },
    "outputs": [
        {
            "name": "outputs",
            "datatype": "FP32",
            "shape": [1, 2, 8],
            "data": OUTPUT_DATA,
        },
        {"name": "write_gate", "datatype": "FP32", "shape": [1, 2, 1], "data": [0.94, 1.0]},
    ],
}

REQUESTS: dict[str, dict[str, Any]] = {
    "infer": {"model": EXAMPLE_MODEL, **STEPS},
    "open_session": {"model": EXAMPLE_MODEL},
    "step_session": STEPS | {"if_step": 0},
    "rewind_session": {"step": 1},
    "fork_session": {"step": 1},
    "v2_index": {"ready": True},
    "v2_infer": V2_INFER,
    "v2_infer_in_version": V2_INFER,
}
"""Bodies in JSON, by operation. That of many sessions has none: it would name a session that is not there."""

ANSWERS: dict[str, Any] = {
    "infer": {"outputs": OUTPUTS, "trace": TRACE, "steps": 2},
    "open_session": SESSION | {"step": 0, "latest": 0},
    "list_sessions": [SESSION],
    "describe_session": SESSION,
    "step_session": STEPPED,
    "step_sessions": {"steps": [2], "outputs": [OUTPUTS], "trace": {"write_gate": [TRACE["write_gate"]]}, "errors": []},
    "reset_session": SESSION | {"step": 0},
    "rewind_session": SESSION | {"step": 1},
    "fork_session": SESSION | {"id": "5bW3mX1o8Tq2h0v9r7KkJA", "step": 1, "latest": 1},
    "read_state": {"id": SESSION["id"], "step": 2, "state": {"usage": [0.94, 1.0, 0.0]}},
    "health": {"status": "ok"},
    "reload_checkpoints": {
        "added": [],
        "changed": [EXAMPLE_MODEL],
        "removed": [],
        "failed": {},
        "models": [EXAMPLE_MODEL],
    },
    "v2_infer": V2_INFERRED,
    "v2_infer_in_version": V2_INFERRED,
}
"""Answers in JSON, by operation."""

PROBLEM = {
    "type": "about:blank",
    "title": "The request is not valid",
    "status": 422,
    "code": "invalid_request",
    "detail": "inputs[1] has 9 numbers, but the model takes 10",
    "place": "inputs[1]",
    "expected": "10 numbers",
    "got": "9",
    "request_id": "3f431534cebe840e",
}
