"""Requests that are answered at once: without a task, FastAPI and ASGI, by calls from the reading of the socket.

These are steps of a session in memory, and one sequence to infer, if request and answer are small. A request that has
to wait for something other than its steps, or is refused before them, is left to the endpoint of its route, which reads
it again.
"""

import functools
import logging
import random
import re
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from app.access.keys import Caller
from app.api.codec import PIECE_BYTES, encode_json
from app.api.decoders import LARGE
from app.api.gate import Admission
from app.api.problems import CLIENT_GONE, problem_response
from app.api.request_ids import HEADER
from app.api.requests import read_infer, read_steps
from app.api.steps import (
    INFER_PATH,
    STEPS_PATH,
    answer_bytes,
    sequence_document,
    steps_document,
    steps_of,
    trace_of,
)
from app.catalogue import ModelCatalogue
from app.errors import EngramError, unexpected_error
from app.logs import asking, new_request_id
from app.metrics import Metrics
from app.protocols.http import Answer, Gone, Respond, lines_of
from app.sessions.service import SessionService
from app.sessions.session import Duplicate, Stepped
from app.settings import Settings
from app.tenants import inside

logger = logging.getLogger(__name__)

STEPS_TARGET = re.compile(STEPS_PATH.replace("{session}", "([A-Za-z0-9_-]+)").encode())
"""The usual target of a request to step a session."""

INFER_TARGET = INFER_PATH.encode()

BATCH = b"[[["
"""The beginning of a batch of sequences, which is left to the endpoint unread."""

JSON_FIELDS = b"content-length: %d\r\ncontent-type: application/json\r\nx-request-id: %016x\r\n"


class AnswerAtOnce:
    """Answers hot requests for the HTTP protocol of a server."""

    def __init__(
        self,
        admission: Admission,
        models: ModelCatalogue,
        sessions: SessionService,
        settings: Settings,
        metrics: Metrics,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.max_body_bytes = min(LARGE - 1, settings.max_body_bytes)
        self._admission = admission
        self._models = models
        self._sessions = sessions
        self._settings = settings
        self._metrics = metrics
        self._clock = clock

    def find(self, target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> Answer | None:
        """Return the answer to a POST request, as `app.protocols.http.AtOnce` has it."""
        found = None if target == INFER_TARGET else STEPS_TARGET.fullmatch(target)
        if found is None and target != INFER_TARGET:
            return None
        caller = self._admission.at_once(headers)
        if caller is None or ("infer" if found is None else "sessions") not in caller.scopes:
            return None
        if found is None:
            return functools.partial(self._infer, caller, self._clock())
        return functools.partial(self._step, caller, found[1].decode(), self._clock())

    def _step(self, caller: Caller, session_id: str, began: float, body: bytes, respond: Respond) -> bool:
        """Step a session, and respond when it is done. Return False if nothing was done."""
        session = self._sessions.turns.known(inside(caller.tenant, session_id))
        if session is None:
            return False
        try:
            caller.check()
            steps = steps_of(session, *read_steps(body, session.model.inputs, self._settings.max_steps))
            if answer_bytes(session.model, len(steps.inputs), steps.trace, session.memory_size) > PIECE_BYTES:
                return False
            caller.take_steps([steps.inputs])
        except Exception:  # the endpoint raises it again
            return False
        asked = _Asked(STEPS_PATH, began, respond)
        try:
            self._sessions.stepping.submit(session, steps, functools.partial(self._answer_steps, asked))
        except Exception:
            self._fail(asked)
        return True

    def _infer(self, caller: Caller, began: float, body: bytes, respond: Respond) -> bool | Gone:
        """Run a sequence, and respond when it is done.

        Return False if nothing was done, a function that drops the sequence while it runs, True if it has ended.
        """
        if BATCH in body:
            return False
        try:
            caller.check()
            wanted, (inputs, batched) = read_infer(body, self._models.inputs, self._settings.max_steps, 1)
            model, memory_size = self._models.get(wanted.model), wanted.memory_size
            trace, force = trace_of(model, wanted, len(inputs[0])), model.force(wanted.force)
            if batched or answer_bytes(model, len(inputs[0]), trace, memory_size) > PIECE_BYTES:
                return False
            caller.take_steps(inputs)
        except Exception:  # the endpoint raises it again
            return False
        asked = _Asked(INFER_PATH, began, respond)
        try:
            done = functools.partial(self._answer, asked, sequence_document)
            drop = self._sessions.inference.submit(model, inputs[0], trace, memory_size, done, force)
        except EngramError as error:
            self._refuse(error, asked)
        except Exception:
            self._fail(asked)
        else:
            return functools.partial(self._drop, drop, asked)
        return True

    def _drop(self, drop: Callable[[], None], asked: "_Asked") -> None:
        """Drop a sequence whose client is gone."""
        drop()
        self._count(CLIENT_GONE, asked)

    def _answer_steps(self, asked: "_Asked", outcome: Stepped | Duplicate | EngramError) -> None:
        """Respond with the result of a request to step, or its error."""
        assert not isinstance(outcome, Duplicate), "only frames come again"
        self._answer(asked, steps_document, outcome)

    def _answer(self, asked: "_Asked", document: Callable[[Any], Any], outcome: Any) -> None:
        """Respond with the document of a result, or with an error."""
        if isinstance(outcome, EngramError):
            self._refuse(outcome, asked)
            return
        try:
            body = encode_json(document(outcome))
        except Exception:
            self._fail(asked)
            return
        self._count(200, asked)
        asked.respond(200, JSON_FIELDS % (len(body), random.getrandbits(64)), body)

    def _fail(self, asked: "_Asked") -> None:
        """Log an unexpected error, and respond with it."""
        identity = new_request_id()
        with asking(identity):
            logger.exception("POST %s failed", asked.route)
        self._refuse(unexpected_error(), asked, identity)

    def _refuse(self, error: EngramError, asked: "_Asked", identity: str | None = None) -> None:
        identity = identity or new_request_id()
        with asking(identity):
            response = problem_response(error)
        self._metrics.refusal(error.code)
        error.__traceback__ = None  # an error that is kept and raised again would grow by it
        self._count(error.status, asked)
        asked.respond(
            error.status, lines_of([*response.raw_headers, (HEADER, identity.encode())]), bytes(response.body)
        )

    def _count(self, status: int, asked: "_Asked") -> None:
        self._metrics.request("POST", asked.route, status, self._clock() - asked.began)


class _Asked(NamedTuple):
    """A request that is answered at once. began: by the clock."""

    route: str
    began: float
    respond: Respond
