"""The log of a server: lines of text, or one JSON object a line; and the request that a line belongs to.

What a client sends may be part of a message: a path, a name, a header. Control characters are escaped in both formats,
so that no client can begin a line of its own or move the cursor of a terminal.
"""

import contextlib
import json
import logging
import random
import re
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

LogFormat = Literal["text", "json"]

TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

LONGEST = 4000
"""Characters of a message or an exception that are logged, at most: a client may send long names."""

UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
"""Control characters, separators of lines, marks that change the direction of text, and lone surrogates."""

QUIET = ("opentelemetry", "urllib3")
"""Loggers of libraries that are heard from warnings on only, whatever the level of the log."""


class Asked(NamedTuple):
    """The request that is carried out."""

    request_id: str
    session: str | None = None
    """The id of its session, if it is known."""


_asked: ContextVar[Asked | None] = ContextVar("asked", default=None)


@contextlib.contextmanager
def asking(request_id: str, session: str | None = None) -> Iterator[None]:
    """Name the request that the lines logged in this context belong to."""
    token = _asked.set(Asked(request_id, session))
    try:
        yield
    finally:
        _asked.reset(token)


def asked() -> Asked | None:
    """Return the request that is carried out, None outside of one."""
    return _asked.get()


def request_id() -> str | None:
    """Return the id of the request that is carried out, None outside of one."""
    request = _asked.get()
    return None if request is None else request.request_id


def new_request_id() -> str:
    """Return an id for a request, which says nothing about other requests."""
    return f"{random.getrandbits(64):016x}"


def name_session(session: str) -> None:
    """Name the session of the request that is carried out, once it is known."""
    request = _asked.get()
    if request is not None:
        _asked.set(request._replace(session=session))


def escaped(text: str, keep: str = "") -> str:
    """Return a text with unsafe characters as escapes of Python, such as \\x1b; keep: characters that stay."""
    return UNSAFE.sub(lambda found: found[0] if found[0] in keep else _escape(found[0]), text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def set_up_logging(level: str, log_format: LogFormat) -> None:
    """Write the log of this process to its error output."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter(TEXT))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


class TextFormatter(logging.Formatter):
    """One line for an event; the lines of an exception follow it, indented."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - of logging
        record.message = _message(record)
        return super().formatMessage(record) + _of_request()

    def formatException(self, ei: Any) -> str:  # noqa: N802 - of logging
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 - of logging
        return _indented(stack_info)


class JsonFormatter(logging.Formatter):
    """One JSON object for an event, in one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the event; `fields` of a record, as given by `extra`, are members of the object."""
        event: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": _message(record),
        }
        request = _asked.get()
        if request is not None:
            event |= {name: _plain(value) for name, value in request._asdict().items() if value is not None}
        event |= {name: _plain(value) for name, value in getattr(record, "fields", {}).items()}
        if record.exc_info:
            event["exception"] = escaped(self.formatException(record.exc_info), keep="\n")
        return json.dumps(event)


def _message(record: logging.LogRecord) -> str:
    message = record.getMessage().rstrip("\n")
    return escaped(message if len(message) <= LONGEST else message[:LONGEST] + " ...")


def _of_request() -> str:
    request = _asked.get()
    if request is None:
        return ""
    session = "" if request.session is None else f", session {escaped(request.session)}"
    return f" [request {request.request_id}{session}]"


def _indented(text: str) -> str:
    return "\n".join("    " + escaped(line) for line in text.split("\n"))


def _plain(value: Any) -> Any:
    return escaped(value) if isinstance(value, str) else value
