"""Requests that are answered at once: without a task, FastAPI and ASGI, by calls from within the reading of the socket.

A step of a session that is in memory is one, if its request and its answer are small. Whatever needs to wait for
something else than the step, or is refused before the step, is left to the endpoint of the route, to be read again.
"""

import functools
import logging
import re
import time
from collections.abc import Callable

from fastapi import Response

from app.api.codec import PIECE_BYTES, encode_json
from app.api.decoders import LARGE
from app.api.problems import problem_response
from app.api.requests import read_steps
from app.api.steps import STEPS_PATH, answer_bytes, steps_document, steps_of
from app.errors import EngramError, InternalError
from app.http_protocol import Answer, Respond
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
        self._sessions.submit(session, steps, functools.partial(self._answer_steps, began, respond))
        return True

    def _answer_steps(self, began: float, respond: Respond, outcome: Stepped | Duplicate | EngramError) -> None:
        """Respond with the result of a request to step, or its error."""
        if not isinstance(outcome, Stepped):
            assert isinstance(outcome, EngramError), "only frames come again"
            self._respond_with(problem_response(outcome), began, respond)
            return
        try:
            body = encode_json(steps_document(outcome))
        except Exception:
            logger.exception("the answer to POST %s could not be written", STEPS_PATH)
            error = InternalError("an unexpected error; the server's log has the details")
            self._respond_with(problem_response(error), began, respond)
            return
        self._metrics.request("POST", STEPS_PATH, 200, self._clock() - began)
        respond(200, JSON_FIELDS % len(body), body)

    def _respond_with(self, response: Response, began: float, respond: Respond) -> None:
        fields = b"".join([b"%b: %b\r\n" % field for field in response.raw_headers])
        self._metrics.request("POST", STEPS_PATH, response.status_code, self._clock() - began)
        respond(response.status_code, fields, bytes(response.body))
