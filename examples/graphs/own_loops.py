"""The loops that people write around these graphs: one stream, its state in variables, onnxruntime and nothing else.

Each takes a session of onnxruntime and the inputs of the steps, [T, I], and yields the outputs of each step, [O].
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

Array = NDArray[Any]


def silero(session: onnxruntime.InferenceSession, inputs: Array) -> Iterator[Array]:
    """512 samples a step, each behind the last 64 of the step before -> the probability of speech."""
    state, window = np.zeros((2, 1, 128), np.float32), np.zeros((1, 64), np.float32)
    for samples in inputs:
        window = np.concatenate([window[:, -64:], samples[np.newaxis]], 1)
        feed = {"input": window, "state": state, "sr": np.array(16000)}
        speech, state = session.run(["output", "stateN"], feed)
        yield speech[0]


def dtln(session: onnxruntime.InferenceSession, inputs: Array) -> Iterator[Array]:
    """257 magnitudes -> the mask, a factor for each."""
    state = np.zeros((1, 2, 128, 2), np.float32)
    for magnitudes in inputs:
        feed = {"input_2": magnitudes[np.newaxis, np.newaxis], "input_3": state}
        mask, state = session.run(["activation_2", "tf_op_layer_stack_2"], feed)
        yield mask[0, 0]


def policy(session: onnxruntime.InferenceSession, inputs: Array) -> Iterator[Array]:
    """48 observations -> 12 actions."""
    h = c = np.zeros((2, 1, 64), np.float32)
    for obs in inputs:
        actions, h, c = session.run(["actions", "h_out", "c_out"], {"obs": obs[np.newaxis], "h_in": h, "c_in": c})
        yield actions[0]


def series(session: onnxruntime.InferenceSession, inputs: Array) -> Iterator[Array]:
    """A value -> the prediction of the next."""
    h = np.zeros((1, 1, 32), np.float32)
    for value in inputs:
        y, h = session.run(["y", "next_h"], {"x": value[np.newaxis, np.newaxis], "h": h})
        yield y[0, 0]


LOOPS = {"silero": silero, "dtln": dtln, "policy": policy, "series": series}


def run_alone(name: str, file: Path, inputs: Array) -> Array:
    """Return the outputs, [T, O], of a graph's own loop over inputs, float32 [T, I]."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return np.stack(list(LOOPS[name](onnxruntime.InferenceSession(file, options), inputs)))
