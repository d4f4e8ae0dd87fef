"""Requests and answers as Engram has them, of inputs cut to a number of columns in place of outputs."""

from typing import Any

import msgpack
import numpy as np
import orjson


def echo_json(data: bytes | str, width: int) -> bytes:
    """Return the answer to a frame or a body with nested lists as inputs."""
    return json_answer([row[:width] for row in orjson.loads(data)["inputs"]])


def json_answer(outputs: Any) -> bytes:
    answer = {"type": "result", "seq": None, "step": 1, "outputs": outputs, "trace": {}}
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def echo_msgpack(data: bytes, width: int) -> bytes:
    """Return the answer to a frame with inputs as raw float32."""
    inputs = msgpack.unpackb(data)["inputs"]
    outputs = np.ascontiguousarray(np.frombuffer(inputs["data"], "<f4").reshape(inputs["shape"])[:, :width])
    raw = {"shape": outputs.shape, "data": outputs.tobytes()}
    answer: bytes = msgpack.packb({"type": "result", "seq": None, "step": 1, "outputs": raw, "trace": {}})
    return answer
