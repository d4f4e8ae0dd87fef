"""The model that Triton's Python back end runs: a step of the torch model for all sequences of a batch at once.

Arrays go by DLPack, for the back end's own conversion wants a NumPy older than 2.
"""

import json
from pathlib import Path
from typing import Any

import torch
import triton_python_backend_utils as triton
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from models.artefact import ServedStep, load
from models.state import flatten


class TritonPythonModel:
    """States by the sequence's number. A request with START opens a sequence, and its step is not taken."""

    def initialize(self, arguments: dict[str, str]) -> None:
        torch.set_num_threads(1)
        checkpoint = json.loads(arguments["model_config"])["parameters"]["checkpoint"]["string_value"]
        model, _ = load(Path(checkpoint))
        self._step, self._first = ServedStep(model), list(flatten(model.initial_state(1)).values())
        self._states: dict[int, list[Tensor]] = {}

    @torch.inference_mode()
    def execute(self, requests: list[Any]) -> list[Any]:
        sequences = [int(_input(request, "CORRID").item()) for request in requests]
        starting = [bool(_input(request, "START").item()) for request in requests]
        states = [self._states.get(sequence, self._first) for sequence in sequences]
        inputs = torch.cat([_input(request, "INPUT") for request in requests])
        outputs, *rest = self._step(inputs, *map(torch.cat, zip(*states, strict=True)))
        for row, (sequence, starts) in enumerate(zip(sequences, starting, strict=True)):
            leaves = [leaf[row : row + 1] for leaf in rest[: len(self._first)]]
            self._states[sequence] = self._first if starts else leaves
        rows = (triton.Tensor.from_dlpack("OUTPUT", outputs[row : row + 1]) for row in range(len(requests)))
        return [triton.InferenceResponse([output]) for output in rows]


def _input(request: Any, name: str) -> Tensor:
    return from_dlpack(triton.get_input_tensor_by_name(request, name).to_dlpack())
