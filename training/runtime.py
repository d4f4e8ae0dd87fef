"""Sessions of ONNX Runtime."""

import re

import onnxruntime

LONGEST = 300
"""Letters of a reason."""


def open_session(graph: bytes) -> onnxruntime.InferenceSession:
    """Return a session of one thread: steps are short, and threads that wait for the next keep the cores busy."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def first_line(error: Exception) -> str:
    """Return the reason of an error of onnxruntime in one line, without colours, codes and places in its source."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().partition("\n")[0]
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = re.sub(
        r"Non-zero status code returned while running (\w+) node\. Name:'([^']*)' Status Message: ", r"\1 '\2': ", text
    )
    text = re.sub(r"/\S+\.(h|cc|cpp):\d+ ", "", text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
