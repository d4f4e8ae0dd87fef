"""The torch model for servers that batch requests: one step of several sessions, whose states are in a dictionary."""

from collections.abc import Hashable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from models.artefact import ServedStep, load
from models.state import flatten


class Batches:
    """The states of sessions, each of which begins when it is first stepped."""

    def __init__(self, checkpoint: Path) -> None:
        torch.set_num_threads(1)
        model, _ = load(checkpoint)
        self._step, self._first = ServedStep(model), list(flatten(model.initial_state(1)).values())
        self._states: dict[Hashable, list[Tensor]] = {}

    @torch.inference_mode()
    def step(self, sessions: Sequence[Hashable], inputs: Tensor) -> Tensor:
        """Step different sessions by inputs [B, input_size], and return the outputs, [B, output_size]."""
        states = [self._states.get(session, self._first) for session in sessions]
        outputs: Tensor
        outputs, *rest = self._step(inputs, *map(torch.cat, zip(*states, strict=True)))
        leaves = rest[: len(self._first)]
        for row, session in enumerate(sessions):
            self._states[session] = [leaf[row : row + 1] for leaf in leaves]
        return outputs

    def forget(self, session: Hashable) -> None:
        """Delete a session's state: it begins anew with its next step."""
        self._states.pop(session, None)
