"""NVIDIA's client of the protocol, and what the server answers to the same inputs by its own interface."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import httpx
import numpy as np
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

Array = np.ndarray[Any, Any]

WIDTH = 10
"""The input_size of the models of the copy task."""


def connected(url: str) -> AbstractContextManager[InferenceServerClient]:
    """Return a client that sends up to eight requests at once."""
    client: AbstractContextManager[InferenceServerClient] = InferenceServerClient(
        url.removeprefix("http://"), concurrency=8, network_timeout=30.0, connection_timeout=30.0
    )
    return client


def tensor(values: Array, binary: bool = True) -> list[InferInput]:
    """Return the input of a request."""
    given = InferInput("inputs", list(values.shape), "FP32")
    given.set_data_from_numpy(values, binary_data=binary)
    return [given]


def wanted(*names: str, binary: bool = True) -> list[InferRequestedOutput]:
    return [InferRequestedOutput(name, binary_data=binary) for name in names]


def numbers(steps: int, seed: int = 0, width: int = WIDTH) -> Array:
    """Return the inputs of a sequence, float32 [steps, width]."""
    return np.random.default_rng(seed).random((steps, width), np.float32)


def inferred(url: str, inputs: Array, trace: Sequence[str] = (), model: str = "dnc-copy") -> dict[str, Array]:
    """Return outputs and traces of a sequence by POST /infer, float32."""
    body = {"model": model, "inputs": inputs.tolist(), "trace": list(trace)}
    document = httpx.post(f"{url}/infer", json=body).json()
    found = {"outputs": document["outputs"], **document["trace"]}
    return {name: np.array(values, np.float32) for name, values in found.items()}
