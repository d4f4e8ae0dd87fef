"""A model in this process: whole sequences, and sessions whose state is kept."""

import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from app.api.inputs import brief, parse_sequence
from app.backends.base import Array, Backend, RowsFailed
from app.catalogue import LoadedModel
from app.errors import InvalidInput, InvalidRequest, NonFiniteOutput
from app.forces import force_document
from app.sampling import sample_of
from engram.notebook.given import numbers_of, whole_number
from engram.notebook.run import WATCHED, Run, due
from engram.notebook.tables import html_table
from models.episodes.base import MOST_SEED, Sample

Force = Mapping[str, Sequence[Any]]
"""Gates that are held at values: name -> nested lists in the shape of its trace, None for what is free."""


class Model:
    """A model whose steps are computed in this process. Threads take turns at it, run by run."""

    def __init__(self, loaded: LoadedModel, backend: Backend, max_steps: int, memory_size: int | None = None) -> None:
        self._loaded = loaded
        self._max_steps = max_steps
        self._backend = backend if memory_size is None else backend.resized(memory_size)
        self.memory_size = self._backend.spec.memory_size
        """The number of memory locations, None for a model without such a memory."""
        self._turn = threading.RLock()

    @property
    def name(self) -> str:
        return self._loaded.name

    @property
    def card(self) -> dict[str, Any]:
        """The description of the model, as a server gives it."""
        return self._loaded.describe()

    def sample(self, seed: int = 0, **sizes: int | str) -> Sample:
        """Return a sequence of the model's task with its answer, a recording, or inputs that the model takes.

        The same seed and sizes give the same sequence. sizes: of the task, such as length=20; others are drawn, as in
        training. Raises InvalidRequest for a seed or a size that is not possible.
        """
        seed = whole_number("seed", seed)
        if not 0 <= seed <= MOST_SEED:
            raise InvalidRequest(f"seed: expected a whole number from 0 to {MOST_SEED}, got {seed}", place="seed")
        return sample_of(self._loaded, seed, {name: str(size) for name, size in sizes.items()}).sample

    def run(
        self,
        inputs: Sample | ArrayLike,
        trace: Iterable[str] | None = None,
        force: Force | None = None,
        targets: ArrayLike | None = None,
        mask: ArrayLike | None = None,
    ) -> Run:
        """Run a sequence, [T, input_size], or [T] of tokens, or a sample, from a fresh state.

        trace: names of traces; None takes the weightings of the heads and the usage, where the model has them. force:
        gates to hold at values. targets: [T, output_size], the answer, if known; mask: [T], whether it is due. Raises
        InvalidInput, InvalidRequest, UnknownName, ValueError for targets that do not fit, NonFiniteOutput.
        """
        return self.session(force).run(inputs, trace, targets, mask)

    def session(self, force: Force | None = None) -> "Session":
        """Return a session in this process, whose state is kept from run to run. force: gates to hold at values."""
        if not isinstance(force, Mapping | None):
            raise InvalidRequest(f"force: expected gates by name, got {brief(force)}", place="force")
        text = self._loaded.force(force)
        backend = self._backend if text is None else self._backend.forced(text)
        return Session(self, self._loaded, backend, self._max_steps, self._turn)

    def __repr__(self) -> str:
        return f"<Model {self.name}, {self._loaded.manifest.kind}, computed by {self._loaded.backend}>"

    def _repr_html_(self) -> str:
        card = self.card | {"memory_size": self.memory_size, "trace": ", ".join(self.card["trace"])}
        return html_table(f"Model {self.name}", [(name, card[name]) for name in SHOWN if card[name] not in (None, "")])


SHOWN = (
    "kind",
    "task",
    "input_size",
    "output_size",
    "vocabulary_size",
    "output_activation",
    "output_groups",
    "output_at",
    "memory_size",
    "word_size",
    "read_heads",
    "write_heads",
    "controller",
    "parameters",
    "backend",
    "device",
    "trace",
)
"""The members of a card that a notebook shows."""


class Session:
    """A state that is kept in this process. Threads take turns at the sessions of a model, run by run."""

    def __init__(
        self, model: Model, loaded: LoadedModel, backend: Backend, max_steps: int, turn: threading.RLock
    ) -> None:
        """turn: held while the back end is used."""
        self.model = model
        self.step = 0
        """The number of steps that it has taken."""
        self._loaded, self._backend, self._max_steps = loaded, backend, max_steps
        self._turn = turn
        with turn:
            self._slot = backend.open()
        weakref.finalize(self, _close, turn, backend, self._slot)

    @property
    def force(self) -> dict[str, Any] | None:
        """The gates that are held at values, None where all are free."""
        return force_document(self._backend.spec.force)

    def run(
        self,
        inputs: Sample | ArrayLike,
        trace: Iterable[str] | None = None,
        targets: ArrayLike | None = None,
        mask: ArrayLike | None = None,
    ) -> Run:
        """Step over inputs: all of them, or none. Arguments and errors as of `Model.run`."""
        if isinstance(inputs, Sample):
            return self.run(inputs.inputs, trace, inputs.targets, inputs.mask)
        sequence, names = self._sequence(inputs), self._names(trace)
        answer = due(targets, mask, (len(sequence), self._loaded.spec.output_size))
        with self._turn:
            outputs, traces = self._take(sequence, names)
            self.step += len(sequence)
            steps = np.arange(self.step - len(sequence) + 1, self.step + 1)
        card, memory_size = self.model.card, self.model.memory_size
        return Run(card, steps, sequence, outputs, traces, answer, self.force, memory_size)

    def state(self) -> dict[str, Array]:
        """Return a copy of the state: its leaves by name."""
        with self._turn:
            return self._backend.read(self._slot)

    def __repr__(self) -> str:
        return f"<Session of {self._loaded.name} at step {self.step}>"

    def _repr_html_(self) -> str:
        members = {"step": self.step, "memory_size": self.model.memory_size, "force": self.force}
        rows = [(name, value) for name, value in members.items() if value is not None]
        return html_table(f"Session of {self._loaded.name}", rows)

    def _sequence(self, inputs: ArrayLike) -> Array:
        array = numbers_of("inputs", inputs)
        if array.ndim > 2:
            raise InvalidInput(
                f"inputs: expected [T, input_size], or [T] of tokens, got the shape {list(array.shape)}: run sequences "
                "one by one",
                place="inputs",
            )
        steps = array[:, np.newaxis] if array.ndim == 1 else array
        return parse_sequence(steps.tolist(), self._loaded.inputs, self._max_steps)

    def _names(self, trace: Iterable[str] | None) -> list[str]:
        if trace is None:
            return [name for name in WATCHED if name in self._loaded.spec.trace]
        return self._loaded.traces([trace] if isinstance(trace, str) else list(trace))

    def _take(self, sequence: Array, names: Sequence[str]) -> tuple[Array, dict[str, Array]]:
        """Return the outputs and traces of the steps. The state is as before after any error."""
        before = self._backend.read(self._slot)
        try:
            taken = [self._step(number, step, names) for number, step in enumerate(sequence)]
        except BaseException:
            self._backend.write(self._slot, before)
            raise
        traces = {name: np.stack([trace[name] for _, trace in taken]) for name in names}
        return np.stack([outputs for outputs, _ in taken]), traces

    def _step(self, number: int, step: Array, names: Sequence[str]) -> tuple[Array, dict[str, Array]]:
        """Return the outputs and traces of one step. Raises NonFiniteOutput."""
        try:
            outputs, traces = self._backend.step([self._slot], step[np.newaxis], names)
        except RowsFailed as error:
            raise NonFiniteOutput(
                f"inputs[{number}]: the outputs of {self._loaded.name} or its state are not finite after this step; "
                "inputs of ordinary size avoid this",
                place=f"inputs[{number}]",
            ) from error
        return outputs[0], {name: np.array(values[0]) for name, values in traces.items()}


def _close(turn: threading.RLock, backend: Backend, slot: int) -> None:
    with turn:
        backend.close(slot)
