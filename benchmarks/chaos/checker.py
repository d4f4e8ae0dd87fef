"""Comparison of clients' records with an undisturbed run, and with a server's sessions."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import safetensors.numpy

from app.backends.fused import FusedBackend
from benchmarks.chaos.load import ANSWER_SECONDS, PATIENCE, PAUSE, PROXY_STATUSES
from benchmarks.chaos.record import (
    KEPT_STEPS,
    Array,
    RecordedSteps,
    Track,
    Violation,
    compare,
    expect,
    memory_size,
    read_recording,
)

EVERY = 16
"""Steps of a run from one kept state to the next."""


class Reference:
    """Undisturbed runs of a checkpoint by the fused back end.

    A run that begins with the same inputs as the one before, the same objects, goes on from a state of that one.
    """

    def __init__(self, checkpoint: Path) -> None:
        size, backend = memory_size(checkpoint), FusedBackend(checkpoint, 1)
        self._backend = backend if size is None else backend.resized(size)
        self._slot = self._backend.open()
        self._inputs: list[Array] = []
        self._outputs: list[Array] = []
        self._states: dict[int, dict[str, Array]] = {0: self._backend.read(self._slot)}
        self.width = self._backend.spec.input_size

    def run(self, inputs: Sequence[Array]) -> tuple[Array, dict[str, Array]]:
        """Return the outputs, [T, output_size], of steps from the first state, and the state after them."""
        begin = same_objects(self._inputs, inputs) // EVERY * EVERY
        self._backend.write(self._slot, self._states[begin])
        self._outputs = self._outputs[:begin]
        for number in range(begin, len(inputs)):
            self._outputs.append(self._backend.step([self._slot], inputs[number][np.newaxis])[0][0])
            if (number + 1) % EVERY == 0:
                self._states[number + 1] = self._backend.read(self._slot)
        self._inputs = list(inputs)
        outputs = np.array(self._outputs, np.float32).reshape(len(inputs), self._backend.spec.output_size)
        return outputs, self._backend.read(self._slot)


def same_objects(ours: Sequence[Array], theirs: Sequence[Array]) -> int:
    """Return the number of leading items that are the same objects in both."""
    pairs = enumerate(zip(ours, theirs, strict=False))
    return next((number for number, (one, other) in pairs if one is not other), min(len(ours), len(theirs)))


def check_answers(tracks: Sequence[Track], reference: Reference) -> int:
    """Compare every answered output with an undisturbed run; return their number. Raises Violation."""
    count = 0
    for track in tracks:
        for inputs, outputs in [*track.branches, (track.inputs, track.outputs)]:
            compare(f"answers of {track.id}", np.array(outputs), reference.run(inputs)[0])
            count += len(outputs)
    return count


def check_sessions(url: str, tracks: Sequence[Track], reference: Reference) -> None:
    """Compare a server's open sessions with the clients' records. Raises Violation."""
    with httpx.Client(base_url=url, timeout=ANSWER_SECONDS) as http:
        for track in tracks:
            info = got(http, f"/sessions/{track.id}").json()
            recorded = _recorded(http, track.id, info)
            for inputs, head in track.possible():
                if (info["step"], info["latest"]) == (head, len(inputs)) and _has(recorded, info, inputs):
                    _check_session(http, track.id, info, recorded, inputs, reference)
                    break
            else:
                known = [(head, len(inputs)) for inputs, head in track.possible()]
                raise Violation(f"session {track.id}: {info}, but its step and latest were {known}, or inputs differ")


def check_earlier_sessions(url: str, tracks: Sequence[Track], reference: Reference, moment: float) -> None:
    """Check that each session of clients without moves is at a step that it was at, no earlier than the last one that
    was answered before a moment of time.monotonic(). Raises Violation."""
    with httpx.Client(base_url=url, timeout=ANSWER_SECONDS) as http:
        for track in tracks:
            info = got(http, f"/sessions/{track.id}").json()
            least = max((step for answered, step in track.answered if answered < moment), default=0)
            inputs = track.possible()[-1][0][: info["step"]]
            if not least <= info["step"] == len(inputs):
                raise Violation(f"session {track.id}: {info}, but it had answered step {least}, of {track.head}")
            recorded = _recorded(http, track.id, info)
            if not _has(recorded, info, inputs):
                raise Violation(
                    f"session {track.id}: its inputs up to step {info['step']} are not those that were sent"
                )
            _check_session(http, track.id, info, recorded, inputs, reference)


def check_ended(url: str, tracks: Sequence[Track]) -> None:
    """Check that sessions are gone. Raises Violation."""
    with httpx.Client(base_url=url, timeout=ANSWER_SECONDS) as http:
        for track in tracks:
            got(http, f"/sessions/{track.id}", 410)


def check_count(url: str, open_now: int) -> None:
    """Check the number of open sessions: none was opened twice. Raises Violation."""
    found = len(httpx.get(f"{url}/sessions?limit=1000").json())
    if found != open_now:
        raise Violation(f"{found} sessions are open, but clients know of {open_now}")


def _has(recorded: RecordedSteps, info: Mapping[str, Any], inputs: Sequence[Array]) -> bool:
    """Return whether a session's recording has these inputs, from a step on that retention may begin with.

    A server may have let go of more steps since it returned `info`, for a handover or where a snapshot was due.
    """
    start = len(inputs) if recorded.start is None else recorded.start
    is_kept = info["oldest"] <= start <= max(info["oldest"], len(inputs) - KEPT_STEPS)
    return is_kept and np.array_equal(recorded.inputs.ravel(), np.array(inputs[start:]).ravel())


def _check_session(
    http: httpx.Client,
    session: str,
    info: Mapping[str, Any],
    recorded: RecordedSteps,
    inputs: Sequence[Array],
    reference: Reference,
) -> None:
    """Compare the recording, the state and one more step of a session with an undisturbed run."""
    compare(
        f"recording of {session}", recorded.outputs, reference.run(inputs)[0][len(inputs) - len(recorded.outputs) :]
    )
    answer = got(http, f"/sessions/{session}/state", headers={"Accept": "application/x-safetensors"})
    found = safetensors.numpy.load(answer.content)
    past = inputs[: info["step"]]
    for name, leaf in reference.run(past)[1].items():
        compare(f"{name} of {session} at step {info['step']}", found[name].ravel(), leaf.ravel())
    more = np.full((1, reference.width), 0.5, np.float32)
    stepped = expect(http.post(f"/sessions/{session}/steps", json={"inputs": more.tolist()}), 200)
    expected = reference.run([*past, *more])[0][-1:]
    compare(f"step {info['step']} of {session}", np.array(stepped["outputs"], np.float32), expected)


def _recorded(http: httpx.Client, session: str, info: Mapping[str, Any]) -> RecordedSteps:
    return read_recording(got(http, f"/sessions/{session}/recording", params={"to": info["latest"]}).text)


def got(http: httpx.Client, path: str, status: int = 200, **options: Any) -> httpx.Response:
    """Return an answer, asked for again as long as the server refuses it for now.

    Raises Violation unless it has this status.
    """
    end = time.monotonic() + PATIENCE
    while (answer := http.get(path, **options)).status_code in PROXY_STATUSES and time.monotonic() < end:
        time.sleep(PAUSE)
    if answer.status_code != status:
        raise Violation(f"GET {answer.request.url}: {answer.status_code} {answer.text}")
    return answer
