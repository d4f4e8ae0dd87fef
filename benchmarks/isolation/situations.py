"""The situations that a session may be in, each played on running servers and recorded.

All are compared with the same sessions alone. Those in which strangers do something else in batches of the same sizes
are also compared with those batches.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import msgpack
import numpy as np
from websockets.sync.client import ClientConnection

from benchmarks.isolation.course import Batches, Course, Moment, Recorder, expected, together
from benchmarks.isolation.host import Array, Host, NotStarted, output_of, packed, receive, stepped
from benchmarks.isolation.stage import Stage
from benchmarks.isolation.strangers import CALM, OTHERS, MovingStrangers, RefusedStrangers, Strangers
from models.manifest import GRAPH_KIND

BACKENDS = ("fused", "onnx", "torch")

Send = Callable[[Array], Array]
"""Sends one step of the observed sessions and the strangers, and returns the outputs of the observed ones."""


class Seen(NamedTuple):
    """The courses of a situation, and those to compare them with beside other strangers, if there are any.

    note: why there is nothing to see.
    """

    courses: Sequence[Course]
    others: Sequence[Course] | None = None
    note: str | None = None


class Situation(NamedTuple):
    """A situation: a short name, a sentence, and the function that plays it, or returns None if the model has none."""

    name: str
    about: str
    play: Callable[[Stage], Seen | None]


def alone(stage: Stage) -> list[Course]:
    """Return the courses of the observed sessions, one after the other, with no other session open."""
    courses = []
    for number in range(stage.plan.sessions):
        recorder = Recorder(stage.host, stage.host.open(1), [number])
        for _ in range(stage.plan.steps):
            recorder.step_alone(stage.plan.inputs)
        stage.host.delete(*recorder.sessions)
        courses += recorder.courses
    return courses


def again(stage: Stage) -> Seen:
    strangers = _extreme(stage)
    for step in range(stage.plan.steps):
        stage.host.step(strangers.sessions, strangers.inputs[step])
    strangers.close()
    return Seen(alone(stage))


def permuted(stage: Stage) -> Seen:
    """Step the observed sessions together, in one order and in the reverse."""
    host, plan = stage.host, stage.plan
    recorder = Recorder(host, host.open(plan.sessions))
    for step in range(plan.steps):
        rows = list(range(plan.sessions))[:: 1 if step % 2 else -1]
        recorder.step(rows, partial(together, host, [recorder.sessions[row] for row in rows], plan.inputs[step, rows]))
    host.delete(*recorder.sessions)
    return Seen(recorder.courses)


def batched(stage: Stage) -> Seen:
    stage.beside = _beside(stage, _calm(stage))
    return Seen(stage.beside, _beside(stage, Strangers(stage.host, stage.plan.random_inputs(OTHERS))))


def extremes(stage: Stage) -> Seen:
    return Seen(_beside(stage, _extreme(stage)), stage.beside)


def refused(stage: Stage) -> Seen:
    return Seen(_beside(stage, RefusedStrangers(stage.host, stage.plan.random_inputs(CALM))), stage.beside)


def moving(stage: Stage) -> Seen:
    return Seen(_beside(stage, MovingStrangers(stage.host, stage.plan)), stage.beside)


def sized(stage: Stage) -> Seen | None:
    """Step beside strangers with one memory location more."""
    size = stage.plan.card.memory_size
    if size is None:
        return None
    extremes, calm = stage.plan.extreme_inputs(), stage.plan.random_inputs(CALM)
    courses, others = (_beside(stage, Strangers(stage.host, inputs, size + 1)) for inputs in (extremes, calm))
    return Seen(courses, others)


def framed(stage: Stage) -> Seen:
    """Step by frames of one WebSocket for all sessions."""
    host, plan, strangers = stage.host, stage.plan, _extreme(stage)
    recorder = Recorder(host, host.open(plan.sessions))
    with host.many([*recorder.sessions, *strangers.sessions]) as socket:

        def send(inputs: Array) -> Array:
            body = {"sessions": list(range(len(inputs))), "inputs": packed(inputs[:, None])}
            socket.send(msgpack.packb(body))
            return expected(stepped(receive(socket)), plan.sessions)

        return Seen(_play(stage, recorder, strangers, send), stage.beside)


def sockets(stage: Stage) -> Seen:
    """Step over a WebSocket for each session, all at the same time."""
    host, plan, strangers = stage.host, stage.plan, _calm(stage)
    recorder = Recorder(host, host.open(plan.sessions))
    with host.streams([*recorder.sessions, *strangers.sessions]) as opened:

        def send(inputs: Array) -> Array:
            _send_all(opened, inputs)
            return np.stack([output_of(receive(socket)) for socket in opened])[: plan.sessions]

        return Seen(_play(stage, recorder, strangers, send))


def inferred(stage: Stage) -> Seen:
    """Run whole sequences by one request, beside those of strangers."""
    courses, others = (_inferred(stage, stage.plan.random_inputs(stream)) for stream in (CALM, OTHERS))
    return Seen(courses, others)


def forked(stage: Stage) -> Seen:
    """Fork sessions where they are and where they were; let all go on, beside strangers; then rewind them."""
    host, plan, strangers = stage.host, stage.plan, _extreme(stage)
    recorder = Recorder(host, host.open(plan.sessions))
    _go_on(recorder, stage, strangers, plan.half)
    forks = [host.fork(session, step) for step in (None, plan.half // 2) for session in recorder.sessions]
    forked = Recorder(host, forks, [*range(plan.sessions)] * 2)
    for _ in range(plan.half, plan.steps):
        forked.step_alone(plan.inputs)
        _go_on(recorder, stage, strangers, 1)
    for session in recorder.sessions:
        host.rewind(session, plan.half)
    recorder.read()
    _go_on(recorder, stage, strangers, 1)
    strangers.close()
    host.delete(*recorder.sessions, *forks)
    return Seen([*recorder.courses, *forked.courses])


def evicted(stage: Stage) -> Seen:
    """Step sessions that take turns in one slot with strangers: each leaves its arena before every step."""
    host, plan = stage.tight, stage.plan
    recorder, strangers = Recorder(host, host.open(plan.sessions)), Strangers(host, plan.extreme_inputs())
    _go_on(recorder, stage, strangers, plan.steps, again=True)
    strangers.close()
    host.delete(*recorder.sessions)
    return Seen(recorder.courses)


def killed(stage: Stage) -> Seen:
    """Kill the server once the first of many frames is answered; it starts again from its log.

    Every other session has a frame under way. The state of the others must be the same afterwards.
    """
    plan, strangers = stage.plan, _calm(stage)
    recorder = Recorder(stage.host, stage.host.open(plan.sessions))
    _go_on(recorder, stage, strangers, plan.half)
    with stage.host.streams([*recorder.sessions[::2], *strangers.sessions]) as opened:
        _send_all(opened, np.concatenate([plan.inputs[plan.half, ::2], strangers.inputs[plan.half]]))
        output = output_of(receive(opened[0]))
        stage.kill()
    recorder.host = strangers.host = stage.host
    recorder.read()
    recorder.was_answered(0, plan.half + 1, output)
    while any(course.moments[-1].step < plan.steps for course in recorder.courses):
        _go_on(recorder, stage, strangers, 1)
    strangers.close()
    stage.host.delete(*recorder.sessions)
    return Seen(recorder.courses)


def moved(stage: Stage) -> Seen:
    return _moved(stage, stage.tight)


def to_backend(backend: str) -> Callable[[Stage], Seen | None]:
    """Return the function that moves sessions to another back end; of an imported graph there is no other."""

    def play(stage: Stage) -> Seen | None:
        if stage.plan.card.backend == backend or stage.plan.card.kind == GRAPH_KIND:
            return None
        try:
            with stage.other(backend) as host:
                return _moved(stage, host)
        except NotStarted as error:
            return Seen([], note=f"not served there: {error}")

    return play


SITUATIONS = (
    Situation("again", "alone once more, in slots that strangers left", again),
    Situation("permuted", "stepped together, in one order and in the reverse", permuted),
    Situation("batched", "in one batch with strangers, by POST /steps", batched),
    Situation("extremes", "with strangers that send the largest and the smallest numbers", extremes),
    Situation("refused", "with strangers that send NaN and infinity", refused),
    Situation(
        "moving", "with strangers that are reset, rewound, forked and deleted, and with forks of its own", moving
    ),
    Situation("sized", "with strangers of another memory size that send extremes", sized),
    Situation("framed", "in one frame of /streams with strangers that send extremes", framed),
    Situation("sockets", "over a WebSocket of its own, as each stranger at the same time", sockets),
    Situation("inferred", "a sequence of one POST /infer, beside those of strangers", inferred),
    Situation("forked", "forked where it is and where it was, and rewound, beside strangers", forked),
    Situation("evicted", "in turns with strangers in one slot", evicted),
    Situation("killed", "replayed from the log, after the server was killed in mid-stream", killed),
    Situation("moved", "moved by snapshot to another server of the same back end", moved),
    *(Situation(f"to {name}", f"moved by snapshot to the back end {name}", to_backend(name)) for name in BACKENDS),
)


def _calm(stage: Stage) -> Strangers:
    return Strangers(stage.host, stage.plan.random_inputs(CALM))


def _extreme(stage: Stage) -> Strangers:
    return Strangers(stage.host, stage.plan.extreme_inputs())


def _beside(stage: Stage, strangers: Strangers) -> list[Course]:
    """Return the courses of new sessions that are stepped in one request with strangers."""
    host, plan = stage.host, stage.plan
    recorder = Recorder(host, host.open(plan.sessions))

    def send(inputs: Array) -> Array:
        return expected(host.step([*recorder.sessions, *strangers.sessions], inputs), plan.sessions)

    return _play(stage, recorder, strangers, send)


def _play(stage: Stage, recorder: Recorder, strangers: Strangers, send: Send) -> list[Course]:
    """Take all steps of sessions and strangers, each step of all by `send`; end them, and return the courses."""
    for step in range(stage.plan.steps):
        strangers.act(step, recorder.sessions)
        strangers.make_ready()
        inputs = np.concatenate([stage.plan.inputs[step], strangers.inputs[step]])
        recorder.step(range(stage.plan.sessions), partial(send, inputs))
    strangers.close()
    stage.host.delete(*recorder.sessions)
    return recorder.courses


def _go_on(recorder: Recorder, stage: Stage, strangers: Strangers | None, steps: int, *, again: bool = False) -> None:
    """Take steps of each session by itself, and between them steps of all strangers together."""
    for step in range(steps):
        if strangers is not None:
            strangers.host.step(strangers.sessions, strangers.inputs[step])
        recorder.step_alone(stage.plan.inputs, again=again)


def _send_all(sockets: Sequence[ClientConnection], inputs: Array) -> None:
    """Send one step to each stream, and wait for none."""
    for socket, each in zip(sockets, inputs, strict=True):
        socket.send(msgpack.packb({"inputs": packed(each[None])}))


def _inferred(stage: Stage, strangers: Array) -> list[Course]:
    """Return courses without states: they begin as the sessions alone do, and have the outputs of /infer."""
    plan, before = stage.plan, stage.host.batches()
    outputs = stage.host.infer(np.concatenate([plan.inputs, strangers], 1).swapaxes(0, 1))
    batches = Batches.since(before, stage.host)
    courses = [Course(course.number, [course.moments[0]]) for course in stage.alone]
    for course, sequence in zip(courses, outputs, strict=False):
        course.moments += [Moment(step + 1, output, None, batches) for step, output in enumerate(sequence)]
    return courses


def _moved(stage: Stage, host: Host) -> Seen:
    """Have sessions go on, on another server, from half of those alone: beside strangers, and before without."""
    others = _adopted(stage, host, None)
    return Seen(_adopted(stage, host, Strangers(host, stage.plan.extreme_inputs())), others)


def _adopted(stage: Stage, host: Host, strangers: Strangers | None) -> list[Course]:
    plan = stage.plan
    halves = [snapshot for course in stage.alone if (snapshot := course.moments[plan.half].snapshot)]
    recorder = Recorder(host, [host.adopt(snapshot) for snapshot in halves])
    _go_on(recorder, stage, strangers, plan.steps - plan.half, again=True)
    host.delete(*recorder.sessions)
    if strangers is not None:
        strangers.close()
    return recorder.courses
