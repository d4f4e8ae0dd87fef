"""The log: its formats, and that no client can write a line of it."""

import json
import logging
import sys
from datetime import datetime, timedelta

import pytest

from app.logs import TEXT, JsonFormatter, TextFormatter, asking, escaped, name_session, new_request_id, request_id

FORMATS = {"text": TextFormatter(TEXT), "json": JsonFormatter()}

UNSAFE = ["\n", "\r", "\t", "\x00", "\x1b[31m", "\x7f", "\x85", "\x9b31m", "\u2028", "\u2029", "\u202e", "\ud800"]


def record(message: str, *arguments: object, **more: object) -> logging.LogRecord:
    made = logging.LogRecord("app.x", logging.WARNING, "x.py", 1, message, arguments, more.pop("exc_info", None))
    made.__dict__.update(more)
    return made


def event(made: logging.LogRecord) -> dict[str, object]:
    found: dict[str, object] = json.loads(FORMATS["json"].format(made))
    return found


@pytest.mark.parametrize("log_format", FORMATS)
@pytest.mark.parametrize("unsafe", UNSAFE, ids=ascii)
def test_unsafe_characters_of_a_client_are_escaped(log_format, unsafe):
    line = FORMATS[log_format].format(record("%s failed", f"a{unsafe}b"))
    shown = json.loads(line)["message"] if log_format == "json" else line
    assert unsafe[0] not in line + shown
    assert shown.isprintable()
    assert f"a{escaped(unsafe)}b failed" in shown


@pytest.mark.parametrize("text", ["plain", "Grüße, 世界", "a\\b", 'say "x"', "😀"])
def test_other_characters_stay(text):
    assert escaped(text) == text
    assert event(record("%s", text))["message"] == text


def test_event_has_time_level_logger_and_message():
    found = event(record("%d of %s", 3, "x"))
    assert found.keys() == {"time", "level", "logger", "message"}
    assert (found["level"], found["logger"], found["message"]) == ("WARNING", "app.x", "3 of x")
    assert datetime.fromisoformat(str(found["time"])).utcoffset() == timedelta(0)


def test_event_of_a_request_has_its_id_and_session():
    with asking("id-1", "a"):
        found, line = event(record("x")), FORMATS["text"].format(record("x"))
        name_session("b")
        later = event(record("x"))
    assert (found["request_id"], found["session"], later["session"]) == ("id-1", "a", "b")
    assert line.endswith("x [request id-1, session a]")
    assert request_id() is None
    assert "request_id" not in event(record("x"))


def test_fields_of_an_event_are_members():
    found = event(record("x", fields={"status": 200, "path": "/\x1b"}))
    assert (found["status"], found["path"]) == (200, "/\\x1b")


@pytest.mark.parametrize("log_format", FORMATS)
def test_message_of_an_exception_begins_no_line(log_format):
    try:
        raise ValueError("x\n2026-01-01 ERROR app: forged\x1b\u2028")
    except ValueError:
        made = record("it failed", exc_info=sys.exc_info())
    text = FORMATS[log_format].format(made)
    lines = text.split("\n")
    assert [line for line in lines if line.startswith("2026-01-01 ERROR")] == []
    assert all(line.startswith("    ") for line in lines[1:])
    assert not set("\x1b\u2028") & set(text)
    if log_format == "json":
        assert "ValueError: x" in json.loads(text)["exception"]
        assert len(lines) == 1


def test_long_message_is_cut():
    assert len(FORMATS["text"].format(record("%s", "x" * 1_000_000))) < 5000


def test_ids_of_requests_differ_and_are_valid():
    ids = {new_request_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(len(identity) == 16 and int(identity, 16) >= 0 for identity in ids)
