"""Requests that are answered at once: without a task, FastAPI and ASGI, by calls from within the reading of the socket.

A step of a session that is in memory is one, if its request and its answer are small. Whatever needs to wait for
something else than the step, or is refused before the step, is left to the endpoint of the route, to be read again.
"""

import functools
import logging
import re
import time
from collections.abc import Callable

from app.api.codec import PIECE_BYTES, encode_json
from app.api.decoders import LARGE
from app.api.problems import problem_response
from app.api.requests import read_steps
from app.api.steps import STEPS_PATH, answer_bytes, steps_document, steps_of
from app.errors import EngramError, unexpected_error
from app.http_protocol import Answer, Respond, lines_of
from app.metrics import Metrics
from app.session import Duplicate, Stepped
from app.sessions import SessionService
from app.settings import Settings

logger = logging.getLogger(__name__)

STEPS_TARGET = re.compile(STEPS_PATH.replace("{session}", "([A-Za-z0-9_-]+)").encode())
"""The target of a request to step a session, as clients usually write it."""

JSON_FIELDS = b"content-length: %d\r\ncontent-type: application/json\r\n"


class AnswerAtOnce:
    """What the HTTP protocol of a server asks for the answers to hot requests."""

    def __init__(
        self,
        sessions: SessionService,
        settings: Settings,
        metrics: Metrics,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.max_body_bytes = min(LARGE - 1, settings.max_body_bytes)
        self._sessions = sessions
        self._settings = settings
        self._metrics = metrics
        self._clock = clock

    def find(self, target: bytes) -> Answer | None:
        """Return the answer to a POST request, as `app.http_protocol.AtOnce` has it."""
        found = STEPS_TARGET.fullmatch(target)
        return functools.partial(self._step, found[1].decode(), self._clock()) if found else None

    def _step(self, session_id: str, began: float, body: bytes, respond: Respond) -> bool:
        """Step a session, and respond when it is done; False: nothing was done."""
        session = self._sessions.known(session_id)
        if session is None:
            return False
        try:
            steps = steps_of(session, *read_steps(body, session.model.inputs, self._settings.max_steps))
            if answer_bytes(session, steps) > PIECE_BYTES:
                return False
        except Exception:  # the endpoint raises it again
            return False
        try:
            self._sessions.submit(session, steps, functools.partial(self._answer_steps, began, respond))
        except Exception:
            self._fail(began, respond)
        return True

    def _answer_steps(self, began: float, respond: Respond, outcome: Stepped | Duplicate | EngramError) -> None:
        """Respond with the result of a request to step, or its error."""
        if isinstance(outcome, EngramError):
            self._refuse(outcome, began, respond)
            return
        assert isinstance(outcome, Stepped), "only frames come again"
        try:
            body = encode_json(steps_document(outcome))
        except Exception:
            self._fail(began, respond)
            return
        self._count(200, began)
        respond(200, JSON_FIELDS % len(body), body)

    def _fail(self, began: float, respond: Respond) -> None:
        """Respond where an error came that nobody expected, and log it."""
        logger.exception("POST %s failed", STEPS_PATH)
        self._refuse(unexpected_error(), began, respond)

    def _refuse(self, error: EngramError, began: float, respond: Respond) -> None:
        response = problem_response(error)
        error.__traceback__ = None  # that of a session's end is raised again and again, and would grow
        self._count(error.status, began)
        respond(error.status, lines_of(response.raw_headers), bytes(response.body))

    def _count(self, status: int, began: float) -> None:
        self._metrics.request("POST", STEPS_PATH, status, self._clock() - began)
