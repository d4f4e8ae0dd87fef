"""Schemas of requests and answers: to check the small parts of requests, and for the documentation at /docs.

Sequences are checked in `inputs.py`, because they are large and on the hot path.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, FailFast, Field, Json, ValidationError, WithJsonSchema

from app.api.inputs import brief, cut
from app.errors import InvalidRequest
from app.sessions.dtypes import Form

Document = TypeVar("Document", bound=BaseModel)

LARGEST = 2**63 - 1
"""The largest number of a step or a frame."""

EXAMPLE_MODEL = "dnc-copy"
EXAMPLE_INPUTS = [[0, 0, 0, 0, 0, 0, 0, 0, 1, 0], [1, 0, 1, 1, 0, 0, 1, 0, 0, 0]]
"""A shipped model, and two steps for it, so that the documentation at /docs can be tried as it is."""

MAX_NAMES = 256
"""The most names of traces in a request; no model has as many."""

NAME_LENGTH = 255
"""The most characters in the name of a model or a trace: models have the names of their directories."""

NUMBERS: dict[str, Any] = {"type": "array", "items": {"type": "number"}}
SEQUENCE: dict[str, Any] = {"type": "array", "items": NUMBERS, "description": "[T][input_size]"}
TOKENS: dict[str, Any] = {"type": "array", "items": {"type": "integer"}, "description": "[T], of tokens"}
BATCH: dict[str, Any] = {"type": "array", "items": SEQUENCE, "description": "[B][T][input_size], of any lengths"}
NESTED: dict[str, Any] = {"type": "array", "items": {}, "description": "nested lists of numbers"}

InputSequence = Annotated[Any, WithJsonSchema({"anyOf": [SEQUENCE, TOKENS]})]
SequenceOrBatch = Annotated[Any, WithJsonSchema({"anyOf": [SEQUENCE, TOKENS, BATCH]})]
ManySequences = Annotated[Any, WithJsonSchema(BATCH)]
Number = Annotated[int, Field(ge=0, le=LARGEST)]
Counts = Annotated[list[Number | None] | None, FailFast()]
MemorySize = Annotated[
    int | None, Field(ge=1, le=LARGEST, description="memory locations, where not as many as the model's card says")
]
FORCE = "gates to hold at values: name -> a list in the shape of its trace, null for what is free"
Gates = dict[str, list[Any]]
Force = Annotated[Gates | None, Field(description=FORCE, examples=[{"write_gate": [0.0]}])]
ForceText = Annotated[Json[Gates] | None, Field(description=FORCE)]
Numbers = Annotated[Any, WithJsonSchema(NESTED)]
Name = Annotated[str, Field(max_length=NAME_LENGTH)]
Names = Annotated[list[Name], Field(max_length=MAX_NAMES), FailFast()]
Dtype = Annotated[Literal["float32", "float16"], Field(description="of the arrays in an answer in msgpack")]


class StrictDocument(BaseModel):
    """A request of known keys, whose values are of the types that are declared."""

    model_config = ConfigDict(extra="forbid", strict=True)


class InferRequest(StrictDocument):
    model: Name = Field(description="the name of a model", examples=[EXAMPLE_MODEL])
    inputs: SequenceOrBatch = Field(
        description="one sequence, or a batch of sequences of any lengths", examples=[EXAMPLE_INPUTS]
    )
    trace: Names = Field([], description="names of the traces to return")
    memory_size: MemorySize = None
    force: Force = None


class OpenRequest(StrictDocument):
    model: Name = Field(description="the name of a model", examples=[EXAMPLE_MODEL])
    memory_size: MemorySize = None
    force: Force = None


class StreamQuery(BaseModel):
    """The parameters of /stream."""

    model: Name
    memory_size: MemorySize = None
    force: ForceText = None


class StepsRequest(StrictDocument):
    inputs: InputSequence = Field(description="the steps to take", examples=[EXAMPLE_INPUTS])
    trace: Names = Field([], description="names of the traces to return")
    if_step: int | None = Field(None, ge=0, le=LARGEST, description="refuse (409) unless the session is at this step")


class ManyRequest(StrictDocument):
    """Steps of many sessions."""

    inputs: ManySequences = Field(description="of each session, of any lengths")
    trace: Names = Field([], description="names of the traces to return")
    dtype: Dtype = "float32"


class ManyStepsRequest(ManyRequest):
    sessions: Annotated[list[Name], FailFast()] = Field(description="[B], ids of sessions")
    if_steps: Counts = Field(None, description="[B]: do not step a session (step_conflict) unless it is at this step")


class ManyFrame(ManyRequest):
    """Steps of many sessions of one socket, each by the number that it got when it was opened there."""

    sessions: Annotated[list[Number], FailFast()]
    seqs: Counts = None


class StreamsQuery(BaseModel):
    """The parameters of /streams: sessions to open at once, as by an OpenFrame."""

    open: str | None = None
    model: Name | None = None
    count: int = Field(1, ge=1, le=LARGEST)
    memory_size: MemorySize = None
    force: ForceText = None


class OpenFrame(StrictDocument):
    """Sessions for a socket: the ids of open ones, or a number of new ones of a model."""

    open: Annotated[list[Name] | None, FailFast()] = None
    model: Name | None = None
    count: int = Field(1, ge=1, le=LARGEST)
    memory_size: MemorySize = None
    force: Force = None


class RewindRequest(StrictDocument):
    step: int = Field(ge=0, le=LARGEST, description="a step that is kept: 0, or `oldest` to `latest` of the session")


class ForkRequest(StrictDocument):
    step: int | None = Field(None, ge=0, le=LARGEST, description="a step that is kept; else where the session is")
    model: str | None = Field(
        None, description="the model that the fork is of, in the version that is served now; else in the session's"
    )
    force: Force = Field(None, description=f"{FORCE}; else those of the session; {{}}: none")


class FrameRequest(StrictDocument):
    """A frame of a client over a WebSocket."""

    inputs: InputSequence
    trace: Names = []
    seq: int | None = Field(None, ge=0, le=LARGEST)
    dtype: Dtype = "float32"


class Frame(NamedTuple):
    """The options of a frame of a WebSocket, all but its inputs."""

    trace: list[str]
    seq: int | None
    dtype: str
    form: Form | None
    """The form in which the inputs came."""


class InferAnswer(BaseModel):
    outputs: Numbers = Field(description="nested as the inputs were")
    trace: dict[str, Numbers] = Field(description="name -> [T][...], or [B][T][...]")
    steps: int | list[int] = Field(description="steps taken; for a batch, of each sequence")


class StepsAnswer(BaseModel):
    outputs: Numbers = Field(description="[T][output_size]")
    trace: dict[str, Numbers] = Field(description="name -> [T][...]")
    step: int = Field(description="steps that the session has taken")


class ManyStepsAnswer(BaseModel):
    steps: list[int | None] = Field(description="[B], steps that each session has taken; null for one that failed")
    outputs: Numbers = Field(description="[B][T][output_size]; null for a session that failed")
    trace: dict[str, Numbers] = Field(description="name -> [B][T][...]")
    errors: list[dict[str, Any]] = Field(
        description="problem documents, each with `index`, the place of the session in the request, and `session`"
    )


class SessionAnswer(BaseModel):
    id: str
    model: str
    memory_size: int | None = Field(description="memory locations; null without a memory")
    step: int = Field(description="steps that the session has taken")
    seq: int | None = Field(description="the number of the last frame that was carried out; null: none was numbered")
    latest: int = Field(description="the last step that it can be put to; above `step` only after a rewind")
    oldest: int = Field(description="the first step that it can be put to, but for 0")
    opened: float = Field(description="seconds since the epoch")
    idle_seconds: float = Field(description="seconds since the session was last used")
    expires_in: float = Field(description="seconds until the session expires if it is not used")
    force: Gates | None = Field(description="the gates that it holds at values; null: none")


class EndedAnswer(BaseModel):
    id: str
    ended: str = Field(description="why the session has ended: deleted, expired, lost in a restart or in a failure")


class StateAnswer(BaseModel):
    id: str
    step: int
    state: dict[str, Numbers] = Field(description="leaf -> nested lists, without a batch axis")


class ModelAnswer(BaseModel):
    name: str
    kind: str
    task: dict[str, Any]
    input_size: int
    output_size: int
    vocabulary_size: int | None = Field(description="inputs are tokens, whole numbers below it; null: any numbers")
    output_activation: str = Field(
        description="sigmoid: outputs are probabilities of a 1; softmax: of the classes; identity: values"
    )
    output_groups: int = Field(description="number of equal parts of the outputs that have a softmax each; else 1")
    output_at: str = Field(description="where the answer stands: every-step, or last-step, one for a sequence")
    memory_size: int | None = Field(description="memory locations, unless others are asked for; null without a memory")
    word_size: int | None
    read_heads: int | None
    write_heads: int | None
    deallocation: bool | None = Field(description="of a DNC: whether a freed memory location is emptied; else null")
    look_up_scaling: bool | None = Field(
        description="of a DNC or NTM: whether key strengths grow with the logarithm of the memory locations; else null"
    )
    order: str | None = Field(description="of an NTM: together, in-turn or before-controller, the order of its heads")
    style: str | None = Field(description="of an NTM: paper, pytorch-ntm or ntm-lasagne, whose formulas it has")
    controller: dict[str, Any] | None = Field(description="null for an imported graph")
    graph: dict[str, Any] | None = Field(
        description="of an imported graph: its inputs, outputs and traces by name, what a step is, where it comes from"
    )
    sample: bool = Field(
        description="whether GET /models/{name}/sample gives the recording of the checkpoint, which it prefers"
    )
    parameters: int
    backend: str
    device: str
    state: dict[str, list[int]] = Field(description="shapes of the state's leaves, without a batch axis")
    trace: dict[str, list[int]] = Field(description="shapes of the traces of one step")
    evaluation: list[dict[str, Any]] = Field(description="measured errors")
    training: dict[str, Any]


class PhaseAnswer(BaseModel):
    name: str = Field(description="listen, ask, plan, say, predict or answer")
    start: int = Field(alias="from", description="the first step")
    to: int = Field(description="the step behind the last one")


class SettingAnswer(BaseModel):
    """A size of a sample, a whole number, or a choice, a word."""

    name: str = Field(description="of the parameter that asks for another value")
    label: str
    value: int | str
    least: int | None = Field(None, description="of a size")
    greatest: int | None = Field(None, description="of a size, beside the others")
    trained: list[int] | list[str] | None = Field(description="the range of a size in training, or the choices there")
    fits: int | None = Field(None, description="the greatest value that the memory has locations for; null: any")
    choices: dict[str, str] | None = Field(None, description="of a choice: its values, with their labels")


class FitsAnswer(BaseModel):
    of: str = Field(description="what is to be kept, one in each memory location: vectors, items, pairs ...")
    needed: int = Field(description="how many there are in this sample")
    memory_size: int = Field(description="memory locations of the model, unless others are asked for")


class SampleAnswer(BaseModel):
    """Beside these, what the task alone has, by name: docs/api.md lists it."""

    model_config = ConfigDict(extra="allow")

    seed: int
    drawn_from: Literal["recording", "task", "card"]
    inputs: Numbers = Field(description="[T][input_size], to send as a sequence or as steps of a session")
    targets: Numbers | None = Field(
        description="[T][output_size], null where nothing is due; null where no answer is known"
    )
    phases: list[PhaseAnswer] = Field(description="the parts of the sequence, in order; none where they are not known")
    labels: list[str] | None = Field(description="a text for each step")
    pattern: Any = Field(description="the part of the inputs that was drawn or written: a list of vectors or of words")
    settings: list[SettingAnswer] = Field(description="the sizes and choices of this sample, which may be asked for")
    fits: FitsAnswer | None = Field(description="null without a memory, or where the need is not known")


class HealthAnswer(BaseModel):
    status: str = Field(description="ok")


class Check(BaseModel):
    """Whether a part of the server is ready."""

    part: Literal["store", "model"]
    model: str | None = Field(None, description="its name")
    version: str | None = Field(None, description="its fingerprint: a model that was replaced has several")
    offered: bool | None = Field(None, description="whether new sessions begin with this version")
    ready: bool
    reason: str | None = Field(None, description="why it is not ready")


class ReadyAnswer(BaseModel):
    """All but `status` is for callers with a key, where keys are needed."""

    status: str = Field(description="ready")
    models: list[str] | None = Field(None, description="the names of the models that are served")
    failed: dict[str, str] | None = Field(None, description="checkpoints that could not be loaded, and why")
    checks: list[Check] | None = Field(None, description="the outcome of each part that was asked")


class ReloadAnswer(BaseModel):
    added: list[str] = Field(description="models that were not served before")
    changed: list[str] = Field(description="models that are served in another version now")
    removed: list[str] = Field(description="models that are no longer offered")
    failed: dict[str, str] = Field(description="checkpoints that could not be loaded, and why")
    models: list[str] = Field(description="the names of all models that are served now")


class ProblemAnswer(BaseModel):
    """A problem document (RFC 9457)."""

    type: str
    title: str
    status: int
    code: str = Field(description="stable; docs/errors.md lists them")
    detail: str
    place: str | None = None
    expected: str | None = None
    got: str | None = None
    request_id: str | None = Field(None, description="that of the header X-Request-ID, and of the server's log")


class ErrorAnswer(BaseModel):
    """An error of the Open Inference Protocol."""

    error: str = Field(description="what is wrong, what is expected, and the remedy")


def parse(document: type[Document], values: dict[str, Any], within: str = "") -> Document:
    """Return a request with these values; within: the place of a part. Raises InvalidRequest for the first fault."""
    within = within and f"{within}."
    if document.model_config.get("extra") == "forbid" and len(values) > len(document.model_fields):
        raise _unknown_key(document, within + next(key for key in values if key not in document.model_fields))
    try:
        return document.model_validate(values)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]  # there are few: at most one for each field, thanks to FailFast
        place = within + place_of(problem["loc"])
        if problem["type"] == "extra_forbidden":
            raise _unknown_key(document, place) from None
        if problem["type"] == "missing":
            known = ", ".join(document.model_fields)
            raise InvalidRequest(f"key {place!r} is missing", place=place, expected=f"an object with {known}") from None
        raise invalid_value(place, problem["msg"], problem["input"]) from None


def _unknown_key(document: type[BaseModel], key: str) -> InvalidRequest:
    shown = cut(key)
    return InvalidRequest(f"unknown key {shown!r}", place=shown, expected=f"one of {', '.join(document.model_fields)}")


def invalid_value(place: str, message: str, value: Any) -> InvalidRequest:
    """Return the error for a value that pydantic refused with this message."""
    got = brief(value)
    expected = message.removeprefix("Input should be ")
    return InvalidRequest(f"{place}: {message}, got {got}", place=place, expected=expected, got=got)


def place_of(location: Sequence[str | int]) -> str:
    """Return the place of a value as a client would write it: trace[0]."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".")
