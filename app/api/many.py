"""Steps of many sessions in one request: POST /steps, and the frames of /streams.

    {"sessions": [B], "inputs": [B][T][I], "trace": [...], ...}      the request, in JSON or msgpack
    {"steps": [B], "outputs": [B][T][O], "trace": {...}, "errors": [...]}

In msgpack `inputs` may be one array {"shape": [B, T, I], "data": bytes}; outputs and traces are then one array each, of
`dtype`, with zeros for a session that failed, but for those that differ in shape from session to session. In lists each
session has its own length, and null stands for one that failed. Inputs that are not valid refuse the whole request; any
other error is of one session.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from app.api.codec import CODECS, check_dtype, in_dtype
from app.api.inputs import brief, parse_sequence
from app.api.schemas import ManyFrame, ManyStepsRequest, parse
from app.api.steps import output_bytes
from app.backends.base import Array, failed_rows
from app.catalogue import InputFormat, ServedModel
from app.errors import EngramError, InvalidInput, InvalidRequest
from app.sessions.dtypes import Form, form_of
from app.sessions.session import Duplicate, Session, Stepped, Steps

ANY_TOKEN = 2**24
"""A vocabulary larger than any: float32 represents every whole number below it."""

Answer = Stepped | Duplicate | EngramError


class Many(NamedTuple):
    """A request to step many sessions, whose models are not known yet."""

    sessions: list[Any]
    inputs: Array | list[Array]
    """float32 [B, T, I], or [T, I] of each session; the numbers are finite."""
    trace: list[str]
    if_steps: list[int | None] | None
    seqs: list[int | None] | None
    forms: list[Form | None]
    """The form in which the inputs of each session came."""
    dtype: str
    """The dtype of the arrays in the answer."""

    @property
    def is_array(self) -> bool:
        """True if the inputs came as one array, and the outputs are sent as one."""
        return isinstance(self.inputs, np.ndarray)


def read_many(
    data: bytes, protocol: str, request: type[ManyStepsRequest] | type[ManyFrame], max_steps: int, max_sequences: int
) -> Many:
    """Return a request to step many sessions. Raises MalformedBody, InvalidRequest, InvalidInput."""
    return parse_many(CODECS[protocol].decode(data), request, protocol, max_steps, max_sequences)


def parse_many(
    values: dict[str, Any],
    request: type[ManyStepsRequest] | type[ManyFrame],
    protocol: str,
    max_steps: int,
    max_sequences: int,
) -> Many:
    """Return a request to step many sessions, which was decoded. Raises InvalidRequest, InvalidInput."""
    wanted: Any = parse(request, values)
    check_dtype(wanted.dtype, protocol)
    count = len(wanted.sessions)
    if not 0 < count <= max_sequences:
        raise InvalidRequest(
            f"sessions: expected 1 to {max_sequences} at a time (setting max_sequences), but {count} came",
            place="sessions",
            expected=f"1 to {max_sequences} sessions",
            got=f"{count} sessions",
        )
    if_steps, seqs = getattr(wanted, "if_steps", None), getattr(wanted, "seqs", None)
    for name, items in (("inputs", wanted.inputs), ("if_steps", if_steps), ("seqs", seqs)):
        _check_count(name, items, count)
    inputs, forms = _inputs(wanted.inputs, max_steps), _forms(wanted.inputs)
    return Many(wanted.sessions, inputs, wanted.trace, if_steps, seqs, forms, wanted.dtype)


def asked_of(
    many: Many, sessions: Sequence[Session | EngramError], most_trace_bytes: float
) -> list[tuple[Session, Steps] | EngramError]:
    """Return the checked steps of each session, or the error of one that is not available.

    most_trace_bytes: of the traces of all sessions together. Raises InvalidInput, InvalidRequest, UnknownName.
    """
    traces: dict[ServedModel, list[str]] = {}
    asked: list[tuple[Session, Steps] | EngramError] = []
    nothing = itertools.repeat(None)
    items = zip(sessions, many.inputs, many.if_steps or nothing, many.seqs or nothing, many.forms, strict=False)
    for number, (session, inputs, if_step, seq, form) in enumerate(items):
        if isinstance(session, EngramError):
            asked.append(session)
            continue
        model = session.model
        _check_inputs(inputs, model.inputs, number)
        trace = traces.get(model)
        if trace is None:
            trace = traces[model] = model.traces(many.trace)
        if trace:
            model.check_trace_bytes(trace, len(inputs), session.memory_size, most_trace_bytes)
            most_trace_bytes -= model.trace_bytes(trace, len(inputs), session.memory_size)
        asked.append((session, Steps(inputs, trace, if_step, seq, form)))
    return asked


def bytes_of_many(many: Many, asked: Sequence[tuple[Session, Steps] | EngramError]) -> tuple[int, int]:
    """Return the bytes of the outputs and of the traces of an answer, as they are held while it is made."""
    outputs = traces = 0
    for item in asked:
        if not isinstance(item, EngramError):
            session, steps = item
            outputs += output_bytes(session.model, len(steps.inputs))
            if steps.trace:
                traces += session.model.trace_bytes(steps.trace, len(steps.inputs), session.memory_size)
    copies = 2 if many.is_array else 1  # the results, and one array of all
    return copies * outputs, copies * traces


def document(many: Many, answers: Sequence[Answer]) -> dict[str, Any]:
    """Return the answer to a request to step many sessions."""
    stepped = [answer if isinstance(answer, Stepped) else None for answer in answers]
    outputs: Any = [None if answer is None else answer.result.outputs for answer in stepped]
    trace: Any = {
        name: [None if answer is None else answer.result.trace[name] for answer in stepped] for name in many.trace
    }
    if many.is_array:
        outputs, trace = _array(outputs), {name: _array(values) for name, values in trace.items()}
    return {
        "steps": [None if isinstance(answer, EngramError) else answer.step for answer in answers],
        "outputs": in_dtype(outputs, many.dtype),
        "trace": in_dtype(trace, many.dtype),
        "errors": [
            {"index": number, "session": many.sessions[number], **answer.problem()}
            for number, answer in enumerate(answers)
            if isinstance(answer, EngramError)
        ],
        **_duplicates(answers),
    }


def _check_count(name: str, items: Any, count: int) -> None:
    """Raise InvalidRequest unless there is an item for each session, or an optional list is left out."""
    if items is None and name != "inputs":
        return
    got = len(items) if isinstance(items, (list, np.ndarray)) else None
    shown = brief(items) if got is None else f"{got} items"
    if got != count:
        raise InvalidRequest(
            f"{name}: expected a list with an item for each of {count} sessions, got {shown}",
            place=name,
            expected=f"{count} items",
            got=shown,
        )


def _duplicates(answers: Sequence[Answer]) -> dict[str, Any]:
    """Return the key for repeated frames whose outputs cannot be computed again, if there are any."""
    found = [number for number, answer in enumerate(answers) if isinstance(answer, Duplicate)]
    return {"duplicates": found} if found else {}


def _array(values: Sequence[Array | None]) -> Array | list[Array | None]:
    """Return arrays as one, [B, T, ...], with zeros for missing ones; those of several models or sizes as they are."""
    found = [value for value in values if value is not None]
    if len({value.shape[1:] for value in found}) > 1:
        return list(values)
    if len(found) == len(values) and len({len(value) for value in found}) == 1:
        return np.stack(found)
    shape = found[0].shape[1:] if found else ()
    joined = np.zeros((len(values), max(map(len, found), default=0), *shape), np.float32)
    for number, value in enumerate(values):
        if value is not None:
            joined[number, : len(value)] = value
    return joined


def _inputs(value: Any, max_steps: int) -> Array | list[Array]:
    """Return the inputs of sessions whose models are not known yet, float32. Raises InvalidInput."""
    if isinstance(value, np.ndarray):
        return _checked_array(np.asarray(value), max_steps)
    return [parse_sequence(item, _format(item), max_steps, f"inputs[{number}]") for number, item in enumerate(value)]


def _forms(value: Any) -> list[Form | None]:
    """Return the form in which the inputs of each session came, which were parsed."""
    return [form_of(value)] * len(value) if isinstance(value, np.ndarray) else list(map(form_of, value))


def _checked_array(array: Array, max_steps: int) -> Array:
    if array.ndim != 3 or 0 in array.shape or array.shape[1] > max_steps:
        raise InvalidInput(
            f"inputs: expected an array [B, T, I] of 1 to {max_steps} steps, got one of shape {list(array.shape)}",
            place="inputs",
            expected=f"[B, T, I], T from 1 to {max_steps}",
            got=str(list(array.shape)),
        )
    for row in failed_rows(array)[:1]:
        # raises the error that names the fault
        parse_sequence(array[row], InputFormat(array.shape[2]), max_steps, f"inputs[{row}]")
    return array


def _format(sequence: Any) -> InputFormat:
    """Return the format of a sequence, judged by its first step: a list of numbers, or a token."""
    first = sequence[0] if isinstance(sequence, (list, np.ndarray)) and len(sequence) else [0]
    if isinstance(first, (list, np.ndarray)):
        return InputFormat(max(1, len(first)))
    return InputFormat(1, ANY_TOKEN)


def _check_inputs(inputs: Array, expected: InputFormat, number: int) -> None:
    """Raise InvalidInput unless the inputs of a session, [T, width], fit its model."""
    if inputs.shape[1] == expected.width and expected.vocabulary_size is None and not expected.whole:
        return
    place = f"inputs[{number}]"
    if inputs.shape[1] != expected.width:
        raise InvalidInput(
            f"{place}: expected steps of {expected.width} numbers, got {inputs.shape[1]}",
            place=place,
            expected=f"steps of {expected.width} numbers",
            got=f"{inputs.shape[1]} numbers",
        )
    parse_sequence(inputs, expected, len(inputs), place)
