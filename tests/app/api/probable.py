"""Hooks of schemathesis: give random requests names, sessions and inputs that the server has, most of the time.

The sessions' ids come in the environment variable SESSIONS, separated by commas.
"""

import os
import random
from typing import Any

import schemathesis

from tests.app.copying import sequence

SESSIONS = "SESSIONS"
MODELS = ("dnc-copy", "ntm-copy", "lstm-copy")
TRACES = ("usage", "read_weights", "write_weights")


def sessions() -> list[str]:
    return os.environ[SESSIONS].split(",")


def probable(values: Any, names: dict[str, Any]) -> Any:
    """Return the values of an object with some replaced; the choice follows from the values."""
    if not isinstance(values, dict):
        return values
    chance = random.Random(repr(values))
    return {key: names[key](chance) if key in names and chance.random() < 0.8 else it for key, it in values.items()}


@schemathesis.hook
def map_path_parameters(_: Any, values: Any) -> Any:
    names = {"session": lambda chance: chance.choice(sessions()), "name": lambda chance: chance.choice(MODELS)}
    return probable(values, names)


@schemathesis.hook
def map_query(_: Any, values: Any) -> Any:
    numbers = {name: lambda chance: chance.randrange(8) for name in ("step", "from", "to")}
    return probable(values, numbers | {"trace": lambda chance: ",".join(traces(chance)), "model": _model})


@schemathesis.hook
def map_body(_: Any, body: Any) -> Any:
    if isinstance(body, dict) and any(isinstance(tensor, dict) for tensor in body.get("inputs") or ()):
        return v2_body(random.Random(repr(body)))
    if not isinstance(body, dict) or "sessions" not in body:
        return probable(body, {"model": _model, "inputs": inputs, "trace": traces, "step": lambda it: it.randrange(8)})
    chance = random.Random(repr(body))
    chosen = [chance.choice(sessions()) for _ in range(chance.randrange(1, 4))]
    rows = [inputs(chance) for _ in chosen]
    return {**body, "sessions": chosen, "inputs": rows, "if_steps": None, "trace": traces(chance)}


def v2_body(chance: random.Random) -> dict[str, Any]:
    """Return a request of the Open Inference Protocol, of one of a few sequences or of none."""
    steps = inputs(chance)
    tensor = {"name": "inputs", "datatype": "FP32", "shape": [1, len(steps), len(steps[0])], "data": steps}
    sequence = {"sequence_id": chance.randrange(4), "sequence_start": True, "sequence_end": chance.random() < 0.3}
    names = ["outputs", *(traces(chance) if chance.random() < 0.5 else ())]
    return {
        "inputs": [tensor],
        "parameters": sequence if sequence["sequence_id"] else {},
        "outputs": [{"name": name} for name in names],
    }


def _model(chance: random.Random) -> str:
    return chance.choice(MODELS)


def inputs(chance: random.Random) -> list[list[float]]:
    return sequence(chance.randrange(1, 4), chance.randrange(100))[0]


def traces(chance: random.Random) -> list[str]:
    return [] if chance.random() < 0.5 else [chance.choice(TRACES)]
