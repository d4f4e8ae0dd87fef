"""Step a sequence of the Open Inference Protocol with NVIDIA's client, one step a request.

    pip install 'tritonclient[http]'
    engram serve
    python examples/with_tritonclient.py http://127.0.0.1:8000

The server keeps the memory of the sequence between the requests; `sequence_start` begins it, `sequence_end` ends it.
"""

import random
import sys

import numpy as np
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

MODEL, SEQUENCE = "dnc-copy", 42
LENGTH, BITS = 8, 8


def steps() -> np.ndarray:
    """Return a sequence of the copy task, [2 LENGTH + 2, BITS + 2]: start, vectors of bits, end, silence."""
    inputs = np.zeros((2 * LENGTH + 2, BITS + 2), np.float32)
    inputs[0, BITS] = inputs[LENGTH + 1, BITS + 1] = 1
    inputs[1 : LENGTH + 1, :BITS] = [[random.randint(0, 1) for _ in range(BITS)] for _ in range(LENGTH)]
    return inputs


def main(url: str) -> None:
    """Send a sequence, and compare what the model says in the silence with the vectors."""
    inputs, said = steps(), []
    with InferenceServerClient(url.removeprefix("http://")) as client:
        for number, step in enumerate(inputs):
            tensor = InferInput("inputs", [1, 1, len(step)], "FP32")
            tensor.set_data_from_numpy(step.reshape(1, 1, -1))
            answer = client.infer(
                MODEL,
                [tensor],
                outputs=[InferRequestedOutput("outputs"), InferRequestedOutput("read_weights")],
                sequence_id=SEQUENCE,
                sequence_start=number == 0,
                sequence_end=number == len(inputs) - 1,
            )
            said.append(answer.as_numpy("outputs")[0, 0])
            print(f"step {number + 1:2}: reads location {answer.as_numpy('read_weights')[0, 0, 0].argmax()}")
    wrong = int((np.round(said[-LENGTH:]) != inputs[1 : LENGTH + 1, :BITS]).sum())
    print(f"session {answer.get_response()['parameters']['session']}: {wrong} of {LENGTH * BITS} bits wrong")


if __name__ == "__main__":
    main(*sys.argv[1:])
