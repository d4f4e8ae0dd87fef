"""The sessions beside the observed ones, and what they do to be seen in them."""

from collections.abc import Sequence

import numpy as np

from benchmarks.isolation.course import Plan
from benchmarks.isolation.host import Array, Host, ServerFault

CALM, OTHERS = 2, 3
"""Streams of random numbers for the inputs of strangers; the observed sessions have 0, extremes 1."""


class Strangers:
    """As many sessions as there are observed ones. inputs: [steps, sessions, input_size]."""

    def __init__(self, host: Host, inputs: Array, memory_size: int | None = None) -> None:
        self.host, self.inputs = host, inputs
        self.sessions = host.open(inputs.shape[1], memory_size)

    def act(self, step: int, observed: Sequence[str]) -> None:
        """Do something before a step, beside the sessions of these ids; here nothing."""

    def make_ready(self) -> None:
        """Have all sessions resident and their turns free, so that they are stepped in one batch with others."""
        for session in self.sessions:
            self.host.snapshot(session)

    def close(self) -> None:
        self.host.delete(*self.sessions)


class RefusedStrangers(Strangers):
    """Send inputs that are not finite, alone and in a frame with the observed sessions, which must be refused."""

    def act(self, step: int, observed: Sequence[str]) -> None:
        for number in (np.nan, np.inf, -np.inf):
            mine = self.inputs[step].copy()
            mine[-1, -1] = number
            theirs = np.ones((len(observed), mine.shape[1]), np.float32)
            for sessions, inputs in (
                (self.sessions, mine),
                ([*observed, *self.sessions], np.concatenate([theirs, mine])),
            ):
                if not self.host.is_refused(sessions, inputs):
                    raise ServerFault(f"POST /steps: inputs with {number} were not refused as invalid")


class MovingStrangers(Strangers):
    """Are reset, rewound, forked, deleted and opened anew, in turns; so are forks of the observed sessions."""

    def __init__(self, host: Host, plan: Plan) -> None:
        super().__init__(host, plan.random_inputs(CALM))
        self._extremes = plan.extreme_inputs()

    def act(self, step: int, observed: Sequence[str]) -> None:
        self._move(step)
        self._fork(observed[step % len(observed)], step)

    def _move(self, step: int) -> None:
        """Reset, rewind, fork or replace one of the strangers."""
        place, action = step % len(self.sessions), step // 2 % 4
        session = self.sessions[place]
        if action == 0:
            self.host.reset(session)
        elif action == 1:
            self.host.rewind(session, 0)
            self.host.step([session], self._extremes[step, :1])
        else:
            self.sessions[place] = self.host.fork(session) if action == 2 else self.host.open(1)[0]
            self.host.delete(session)

    def _fork(self, session: str, step: int) -> None:
        """Fork an observed session, and step, reset, rewind and delete the fork."""
        fork = self.host.fork(session)
        self.host.step([fork], self._extremes[step, -1:])
        self.host.rewind(fork, step)
        self.host.step([fork], self.inputs[step, :1])
        self.host.reset(fork)
        self.host.delete(fork)
