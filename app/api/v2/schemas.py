"""Schemas of the Open Inference Protocol: to check requests, and for the documentation at /docs."""

from typing import Annotated, Any

from pydantic import BaseModel, Field, WithJsonSchema

from app.api.schemas import MAX_NAMES, MemorySize, Name, Number, StrictDocument

INPUTS, OUTPUTS = "inputs", "outputs"
"""The names of the tensors of every model; its traces are further outputs, under their own names."""

FP32 = "FP32"

MAX_SEQUENCE_ID = 2**64 - 1

SEQUENCE_ID = {"anyOf": [{"type": "integer", "minimum": 0, "maximum": MAX_SEQUENCE_ID}, {"type": "string"}]}
DATA = {
    "type": ["array", "null"],
    "items": {},
    "description": "the numbers, row by row, or lists nested as the shape is",
}

SequenceId = Annotated[Any, WithJsonSchema(SEQUENCE_ID)]
Data = Annotated[Any, WithJsonSchema(DATA)]
Parameters = dict[str, Any]


class InferParameters(StrictDocument):
    """The parameters of a request to infer."""

    sequence_id: SequenceId = Field(None, description="the sequence that the request belongs to; 0 or '': to none")
    sequence_start: bool = Field(False, description="the first request of the sequence; one under way begins anew")
    sequence_end: bool = Field(False, description="the last request of the sequence")
    binary_data_output: bool = Field(False, description="whether outputs come in binary unless they say otherwise")
    memory_size: MemorySize = None
    if_step: Number | None = Field(None, description="refuse (409) unless the sequence is at this step")
    priority: Number | None = Field(None, description="taken and not used")
    timeout: Number | None = Field(None, description="taken and not used")


class InputTensor(StrictDocument):
    name: Name
    datatype: Name = Field(description=FP32)
    shape: Annotated[list[Number], Field(max_length=8)] = Field(
        description="[B, T, input_size], [T, input_size] or [input_size]"
    )
    data: Data = None
    parameters: Parameters = Field({}, description="binary_data_size: the bytes of the tensor behind the JSON")


class RequestedOutput(StrictDocument):
    name: Name = Field(description=f"{OUTPUTS}, or the name of a trace")
    parameters: Parameters = Field({}, description="binary_data: whether it comes in binary")


class V2InferRequest(StrictDocument):
    id: Name = Field("", description="comes back in the answer")
    parameters: Parameters = Field(
        {},
        description=f"any of {', '.join(InferParameters.model_fields)}",
    )
    inputs: Annotated[list[InputTensor], Field(max_length=MAX_NAMES)]
    outputs: Annotated[list[RequestedOutput] | None, Field(max_length=MAX_NAMES)] = Field(
        None, description=f"without it: {OUTPUTS}"
    )


class IndexRequest(StrictDocument):
    ready: bool = Field(False, description="whether to leave out models that could not be loaded")


class Tensor(BaseModel):
    name: str
    datatype: str
    shape: list[int]


class OutputTensor(Tensor):
    data: Data = None
    parameters: Parameters | None = None


class V2InferAnswer(BaseModel):
    model_name: str
    model_version: str
    id: str | None = Field(None, description="that of the request")
    parameters: Parameters | None = Field(
        None,
        description="of a sequence: sequence_id, sequence_start, sequence_end, sequence_restarted, session and step",
    )
    outputs: list[OutputTensor]


class ServerAnswer(BaseModel):
    name: str
    version: str
    extensions: list[str]


class LiveAnswer(BaseModel):
    live: bool


class V2ReadyAnswer(BaseModel):
    name: str | None = None
    ready: bool


class MetadataAnswer(BaseModel):
    name: str
    versions: list[str]
    platform: str
    inputs: list[Tensor]
    outputs: list[Tensor]


class ConfigAnswer(BaseModel):
    name: str
    platform: str
    backend: str
    version_policy: dict[str, Any]
    max_batch_size: int
    input: list[dict[str, Any]]
    output: list[dict[str, Any]]
    sequence_batching: dict[str, Any]
    parameters: dict[str, Any]


class StatisticsAnswer(BaseModel):
    model_stats: list[dict[str, Any]]


class IndexedModel(BaseModel):
    name: str
    version: str
    state: str = Field(description="READY or UNAVAILABLE")
    reason: str


BODIES = (IndexRequest, V2InferRequest)
"""The documents that the routes read by themselves."""
