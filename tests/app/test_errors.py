"""The conversion of errors to HTTP responses."""

import asyncio
import json

import pytest
from fastapi import FastAPI

from app.api.problems import add_problem_handlers
from app.api.request_ids import IdentifyRequests
from app.errors import (
    BodyTooLarge,
    EngramError,
    InvalidInput,
    RateLimited,
    SessionMoved,
    TooManyRequests,
    Unavailable,
)
from app.metrics import Metrics


def subclasses(cls: type[EngramError]) -> list[type[EngramError]]:
    return [found for child in cls.__subclasses__() for found in [child, *subclasses(child)]]


def ask(path: str, error: BaseException) -> tuple[int, dict[str, str], dict[str, object]]:
    """Return the status, headers and document of the response to an error that a route raises."""
    app = FastAPI()
    app.state.metrics = Metrics()
    app.add_middleware(IdentifyRequests, access_log=False)
    add_problem_handlers(app)

    @app.get("/fail")
    async def fail() -> None:
        raise error

    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b"", "http_version": "1.1"}
    asyncio.run(app(scope | {"scheme": "http", "server": ("x", 1), "root_path": ""}, receive, send))
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, json.loads(sent[1]["body"])


@pytest.mark.parametrize("error", subclasses(EngramError), ids=lambda error: error.__name__)
def test_every_error_is_a_problem_document(error):
    status, headers, document = ask("/fail", error("what is wrong", place="inputs[0]"))
    assert (status, headers["content-type"]) == (error.status, "application/problem+json")
    assert document["code"] == error.code
    assert (document["detail"], document["place"], document["status"]) == ("what is wrong", "inputs[0]", error.status)
    assert ("retry-after" in headers) == issubclass(error, (Unavailable, TooManyRequests))


@pytest.mark.parametrize("error", subclasses(EngramError), ids=lambda error: error.__name__)
def test_every_error_has_a_close_code_of_its_own_range(error):
    code = error("x").close_code
    assert code in (1008, 1009, 1011, 1012, 1013) or code == 4000 + error.status


def test_retry_after_is_whole_seconds_in_header_and_document():
    status, headers, document = ask("/fail", RateLimited("too fast", retry_after=2.01))
    assert (status, headers["retry-after"], document["retry_after"]) == (429, "3", 3)
    _, headers, document = ask("/fail", RateLimited("too fast", retry_after=0.01))
    assert (headers["retry-after"], document["retry_after"]) == ("1", 1)


def test_session_that_moved_is_asked_for_again_at_once():
    assert SessionMoved("connect again").headers == {"Retry-After": "0"}


def test_codes_are_distinct():
    codes = [error.code for error in subclasses(EngramError)]
    assert len(codes) == len(set(codes))


def test_unexpected_error_hides_its_cause():
    status, _, document = ask("/fail", RuntimeError("secret"))
    assert (status, document["code"]) == (500, "internal_error")
    assert "secret" not in json.dumps(document)


def test_unknown_route_is_a_problem_document():
    status, _, document = ask("/nowhere", ValueError())
    assert (status, document["code"]) == (404, "not_found")


def test_members_that_do_not_apply_are_left_out():
    assert BodyTooLarge("x").problem().keys() == {"type", "title", "status", "code", "detail"}
    assert InvalidInput("x", place="a", expected="b", got="c", step=4).problem()["step"] == 4


def test_long_input_is_not_sent_back_in_full():
    status, _, document = ask("/fail", InvalidInput("x" * 10**5, place="y" * 10**5, got="z" * 10**5, step=3))
    assert (status, document["step"]) == (422, 3)
    assert [document[name] for name in ("detail", "place", "got")] == ["x" * 4000, "y" * 4000, "z" * 4000]
