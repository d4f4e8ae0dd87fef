"""The model that Triton's Python back end runs: a step of the torch model for all sequences of a batch at once.

Arrays are passed by DLPack, for the back end's own conversion needs a NumPy older than 2.
"""

import json
from pathlib import Path
from typing import Any

import torch
import triton_python_backend_utils as triton
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from benchmarks.floors.batches import Batches


class TritonPythonModel:
    """States by the sequence's number. A request with START opens a sequence, and its step is not taken."""

    def initialize(self, arguments: dict[str, str]) -> None:
        self._batches = Batches(Path(json.loads(arguments["model_config"])["parameters"]["checkpoint"]["string_value"]))

    def execute(self, requests: list[Any]) -> list[Any]:
        sequences = [int(_input(request, "CORRID").item()) for request in requests]
        outputs = self._batches.step(sequences, torch.cat([_input(request, "INPUT") for request in requests]))
        for sequence, request in zip(sequences, requests, strict=True):
            if _input(request, "START").item():
                self._batches.forget(sequence)
        rows = (triton.Tensor.from_dlpack("OUTPUT", outputs[row : row + 1]) for row in range(len(requests)))
        return [triton.InferenceResponse([output]) for output in rows]


def _input(request: Any, name: str) -> Tensor:
    return from_dlpack(triton.get_input_tensor_by_name(request, name).to_dlpack())
