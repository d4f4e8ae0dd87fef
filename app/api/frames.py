"""Schemas of the frames that a server sends over WebSockets, in JSON; in msgpack arrays take the place of nested lists.

`scripts/typescript` makes types for pages of them, and `scripts/asyncapi` a document.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from app.api.schemas import NUMBERS, FrameRequest, Gates, ManyFrame, Numbers, OpenFrame, ProblemAnswer

Steps = Annotated[Any, WithJsonSchema({"type": "array", "items": NUMBERS})]


class ServerFrame(BaseModel):
    """A frame of known members."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Place(ServerFrame):
    """The place of a session: its model and its step."""

    session: str = Field(description="its id")
    model: str
    memory_size: int | None = Field(description="memory locations; null without a memory")
    step: int = Field(description="steps that the session has taken")
    seq: int | None = Field(description="the number of the last frame that was carried out; null: none was numbered")
    force: Gates | None = Field(description="the gates that it holds at values; null: none")


class SessionFrame(Place):
    """The greeting of a stream of one session."""

    type: Literal["session"]


class ResultFrame(ServerFrame):
    """The answer to a frame of one session."""

    type: Literal["result"]
    seq: int | None
    step: int = Field(description="steps that the session has taken")
    outputs: Steps = Field(description="[T][output_size]")
    trace: dict[str, Numbers] = Field(description="name -> [T][...]")


class DuplicateFrame(ServerFrame):
    """The answer to a frame that came before, and whose outputs can no longer be computed."""

    type: Literal["result"]
    seq: int | None
    step: int
    duplicate: Literal[True]


class StreamsFrame(ServerFrame):
    """The greeting of a socket of many sessions, with those that its URL opened."""

    type: Literal["streams"]
    models: list[str]
    first: int = Field(description="the number of the first of these sessions on this socket")
    sessions: list[Place]


class SessionsFrame(ServerFrame):
    """The sessions that a frame has opened, numbered from `first` on."""

    type: Literal["sessions"]
    first: int
    sessions: list[Place]


class SessionProblem(ProblemAnswer):
    """The error of one session among many."""

    model_config = ConfigDict(extra="allow")

    index: int = Field(description="the place of the session in the frame")
    session: int = Field(description="its number on this socket")


class ResultsFrame(ServerFrame):
    """The answer to a frame of many sessions."""

    type: Literal["results"]
    steps: list[int | None] = Field(description="steps that each session has taken; null for one that failed")
    outputs: list[Steps | None] = Field(description="[B][T][output_size]; null for a session that failed")
    trace: dict[str, list[Numbers | None]] = Field(description="name -> [B][T][...]")
    errors: list[SessionProblem]
    duplicates: list[int] = Field([], description="places of sessions whose outputs can no longer be computed")


class ErrorFrame(ProblemAnswer):
    """The last frame before the server closes the socket: a problem document, with further members where they apply."""

    model_config = ConfigDict(extra="allow")

    type: Literal["error"]


STREAM_REQUESTS: tuple[type[BaseModel], ...] = (FrameRequest,)
"""Frames of clients over /stream and /sessions/{session}/stream."""

STREAMS_REQUESTS: tuple[type[BaseModel], ...] = (OpenFrame, ManyFrame)
"""Frames of clients over /streams."""

STREAM_FRAMES: tuple[type[BaseModel], ...] = (SessionFrame, ResultFrame, DuplicateFrame, ErrorFrame)
"""Frames of a server over /stream and /sessions/{session}/stream."""

STREAMS_FRAMES: tuple[type[BaseModel], ...] = (StreamsFrame, SessionsFrame, ResultsFrame, ErrorFrame)
"""Frames of a server over /streams."""
