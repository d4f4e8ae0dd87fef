"""Requests to infer: of a sequence, whose session is stepped, or without one."""

from typing import Any, NamedTuple

from fastapi import Request, Response

from app.api.deps import Services, read_body, services
from app.api.disconnects import unless_disconnected
from app.api.gate import check_scope
from app.api.leases import hold_answer
from app.api.steps import output_bytes
from app.api.v2.answers import JSON_BYTES, Answered, answer_outputs
from app.api.v2.requests import Asked, Sequence, read_infer
from app.api.v2.schemas import OUTPUTS
from app.api.v2.sequences import Sequences
from app.api.v2.statistics import Statistics, Stopwatch
from app.api.v2.tensors import check_single, output_tensor, sequences_of
from app.api.v2.versions import SEQUENCES, Version, version_of
from app.backends.base import Array
from app.catalogue import ServedModel
from app.engine.run import Result
from app.errors import InvalidRequest, MalformedBody, UnknownName
from app.sessions.session import Steps


class OpenInference(NamedTuple):
    """The parts of a server that are of this protocol alone."""

    sequences: Sequences
    statistics: Statistics


async def infer(request: Request, name: str, version: str = SEQUENCES.name) -> Response:
    """Answer a request to infer, and count it."""
    found = services(request)
    here: OpenInference = request.scope["app"].state.open_inference
    model = found.models.get(name)
    form = version_of(model, version)
    body = await read_body(request, found.settings.max_body_bytes, found.budgets.uploads)
    watch = Stopwatch()
    try:
        response = await _Inference(request, found, here, model, form, watch).answer(body)
    except BaseException:
        here.statistics.failed(name, watch)
        raise
    here.statistics.succeeded(name, watch)
    return response


class _Inference:
    """One request to infer."""

    def __init__(
        self,
        request: Request,
        found: Services,
        here: OpenInference,
        model: ServedModel,
        version: Version,
        watch: Stopwatch,
    ) -> None:
        self._request = request
        self._services = found
        self._here = here
        self._model = model
        self._version = version
        self._watch = watch

    async def answer(self, body: bytes) -> Response:
        asked = await self._services.decoders.call(read_infer, body, _json_bytes(self._request, body))
        asked = asked._replace(inputs=self._version.as_sequences(asked.inputs))
        self._watch.end_part("compute_input")
        results, more = await (self._run(asked) if asked.sequence is None else self._step(asked, asked.sequence))
        self._watch.end_part("compute_infer")
        document = {"model_name": self._model.name, "model_version": self._version.name}
        if asked.id:
            document["id"] = asked.id
        outputs = [Answered(name, self._output(asked, name, results), binary) for name, binary in asked.outputs]
        response = await answer_outputs(document | more, outputs, self._request.headers.get("accept-encoding", ""))
        self._watch.end_part("compute_output")
        return response

    def _output(self, asked: Asked, name: str, results: list[Result]) -> Array:
        return self._version.as_answered(output_tensor(name, results, asked.inputs.ndim))

    async def _run(self, asked: Asked) -> tuple[list[Result], dict[str, Any]]:
        """Run sequences whose state is not kept; return their results, and the members of the answer: none."""
        check_scope(self._services.caller, "infer", self._request.scope["path"])
        self._model.memory.check(asked.memory_size)
        sequences, traces = self._checked(asked, self._model, asked.memory_size)
        running = self._services.sessions.inference.run(self._model, sequences, traces, asked.memory_size)
        self._watch.end_part("queue")
        return await unless_disconnected(self._request, running), {}

    async def _step(self, asked: Asked, sequence: Sequence) -> tuple[list[Result], dict[str, Any]]:
        """Step a sequence; return its result, and the members of the answer: what became of the sequence."""
        check_scope(self._services.caller, "sessions", self._request.scope["path"])
        _check_sequence(asked, sequence)

        def prepare(model: ServedModel, memory_size: int | None) -> Steps:
            [inputs], traces = self._checked(asked, model, memory_size)
            self._watch.end_part("queue")
            return Steps(inputs, traces, asked.if_step)

        caller = self._services.caller
        taken = await self._here.sequences.step(caller, self._model, sequence, asked.memory_size, prepare)
        parameters = {
            "sequence_id": sequence.id,
            "sequence_start": sequence.start,
            "sequence_end": sequence.end,
            "sequence_restarted": taken.restarted,
            "session": taken.session,
            "step": taken.stepped.step,
        }
        return [taken.stepped.result], {"parameters": parameters}

    def _checked(self, asked: Asked, model: ServedModel, memory_size: int | None) -> tuple[list[Array], list[str]]:
        """Return the inputs of a request and the names of its traces; hold its answer, and take its steps.

        Raises InvalidInput, InvalidRequest, UnknownName, AnswersFull, RateLimited.
        """
        settings = self._services.settings
        sequences = sequences_of(
            asked.inputs, asked.shape, model.inputs, settings.max_steps, settings.sequences_at_once
        )
        traces, steps = _traces(asked, model), sum(map(len, sequences))
        model.check_trace_bytes(traces, steps, memory_size)
        traced = model.trace_bytes(traces, steps, memory_size)
        hold_answer(self._request, self._services.budgets, output_bytes(model, steps), traced)
        self._services.caller.take_steps(sequences)
        return sequences, traces


def _json_bytes(request: Request, body: bytes) -> int | None:
    """Return the length of the JSON of a body; None where it is all of it. Raises MalformedBody."""
    given = request.headers.get(JSON_BYTES)
    if given is None:
        return None
    length = int(given) if given.isascii() and given.isdigit() and len(given) < len(str(2**63)) else -1
    if not 0 < length <= len(body):
        raise MalformedBody(
            f"{JSON_BYTES}: expected the length of the JSON, 1 to the {len(body)} bytes of the body, got {given!r}",
            place=JSON_BYTES,
            got=given,
        )
    return length


def _check_sequence(asked: Asked, sequence: Sequence) -> None:
    """Raise InvalidInput, InvalidRequest for what a request of a sequence cannot have."""
    check_single(asked.inputs, asked.shape)
    if asked.memory_size is not None and not sequence.start:
        raise InvalidRequest(
            "parameters.memory_size: a sequence keeps the memory that it began with: leave it out, or begin anew with "
            "sequence_start",
            place="parameters.memory_size",
            got=str(asked.memory_size),
        )
    if sequence.start and asked.if_step:
        raise InvalidRequest(
            f"parameters.if_step: a sequence begins at step 0, got {asked.if_step}: leave it out, or go on without "
            "sequence_start",
            place="parameters.if_step",
            expected="0",
            got=str(asked.if_step),
        )


def _traces(asked: Asked, model: ServedModel) -> list[str]:
    """Return the outputs that are traces. Raises UnknownName."""
    for index, output in enumerate(asked.outputs):
        if output.name != OUTPUTS and output.name not in model.spec.trace:
            known = ", ".join((OUTPUTS, *model.spec.trace))
            raise UnknownName(
                f"outputs[{index}].name: {model.name} has no output {output.name!r}; it has {known}",
                place=f"outputs[{index}].name",
                expected=f"one of {known}",
                got=output.name,
            )
    return asked.traces
