"""A client's record of a session, and what may become of a request."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
from numpy.typing import NDArray

from models.manifest import read_manifest

Array = NDArray[np.float32]

KEPT_STEPS = 50

MEMORY_SIZE = 4
"""Memory locations of a session, if it has a memory: a small state has many snapshots."""


class Violation(AssertionError):
    """A broken promise of the server; the message names it and the session."""


class Lost(Exception):
    """The error of a request that was not carried out, or not answered; it is sent again.

    after: the seconds to wait before, as the refusal says.
    """

    def __init__(self, detail: str, after: float) -> None:
        super().__init__(detail)
        self.after = after


class Wait(NamedTuple):
    """The wait for an answer: from the first time that a request is sent, in seconds of time.monotonic().

    again: how often it was sent again.
    """

    session: str
    began: float
    ended: float
    again: int

    @property
    def seconds(self) -> float:
        return self.ended - self.began


@dataclass(eq=False)
class Track:
    """A client's record of a session.

        inputs    |----------------------------------|
        outputs   |----------------------------------|
                                     head, after a rewind; else the end

    The next steps after a rewind replace those behind the head. furthest: the last step ever of the session and of its
    origin: the KEPT_STEPS before are kept. seq: the last frame that was answered. pending: a request that may have been
    carried out, steps or the head after a move. answered: the time of each answered step, in seconds of
    time.monotonic().
    """

    id: str
    inputs: list[Array] = field(default_factory=list)
    outputs: list[Array] = field(default_factory=list)
    head: int = 0
    furthest: int = 0
    seq: int | None = None
    pending: "Array | int | None" = None
    branches: list[tuple[list[Array], list[Array]]] = field(default_factory=list)
    answered: list[tuple[float, int]] = field(default_factory=list)

    def extend(self, inputs: Array, outputs: Array) -> None:
        """Record the answer to steps, [T, input_size] and [T, output_size]."""
        if self.head < len(self.inputs):
            self.branches.append((self.inputs, self.outputs))
        self.inputs = [*self.inputs[: self.head], *inputs]
        self.outputs = [*self.outputs[: self.head], *outputs]
        self.furthest = max(self.furthest if self.head else 0, len(self.inputs))
        self.head = len(self.inputs)
        self.answered.append((time.monotonic(), self.head))

    def fork(self, session: str, step: int) -> "Track":
        return Track(session, self.inputs[:step], self.outputs[:step], step, self.furthest)

    def possible(self) -> list[tuple[list[Array], int]]:
        """Return the possible inputs and heads of the session: one pair, or two while a request is pending."""
        known = [(self.inputs, self.head)]
        if isinstance(self.pending, int):
            known.append((self.inputs, self.pending))
        elif self.pending is not None:
            inputs = [*self.inputs[: self.head], *self.pending]
            known.append((inputs, len(inputs)))
        return known


class RecordedSteps(NamedTuple):
    """The steps of a recording: the step before the first, if any; inputs [T, input_size], outputs [T, output_size]."""

    start: int | None
    inputs: Array
    outputs: Array


def compare(what: str, found: Array, expected: Array) -> None:
    """Raise Violation unless two arrays are equal, bit for bit."""
    if found.shape != expected.shape and not found.size == expected.size == 0:
        raise Violation(f"{what}: the shape is {found.shape}, not {expected.shape}")
    wrong = [step for step, (ours, theirs) in enumerate(zip(found, expected, strict=True)) if (ours != theirs).any()]
    if wrong:
        raise Violation(f"{what}: {len(wrong)} of {len(expected)} differ, the first at {wrong[0]}")


def read_recording(text: str) -> RecordedSteps:
    """Return the steps of a recording. Raises Lost if it breaks off."""
    lines = [json.loads(line) for line in text.splitlines()]
    broken = [line["error"]["detail"] for line in lines if "error" in line]
    if broken:
        raise Lost(broken[0], 0.0)
    inputs, outputs = (np.array([line[name] for line in lines], np.float32) for name in ("inputs", "outputs"))
    return RecordedSteps(lines[0]["step"] - 1 if lines else None, inputs, outputs)


def memory_size(checkpoint: Path) -> int | None:
    """Return the memory size of the sessions, None for a model without a memory."""
    return MEMORY_SIZE if "memory_size" in read_manifest(checkpoint).config else None


def expect(answer: httpx.Response, status: int) -> dict[str, Any]:
    """Return the body of an answer. Raises Violation unless it has this status."""
    if answer.status_code != status:
        raise Violation(f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text}")
    document: dict[str, Any] = answer.json() if answer.content else {}
    return document
