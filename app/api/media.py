"""The media types of bodies."""

from collections.abc import Iterable

JSON = "application/json"
SAFETENSORS = "application/x-safetensors"
MSGPACK = "application/msgpack"
OCTETS = "application/octet-stream"
JSON_LINES = "application/x-ndjson"
PROBLEM = "application/problem+json"

Headers = Iterable[tuple[bytes, bytes]]
"""Header fields, their names in lower case."""


def media_type(headers: Headers) -> str:
    """Return the media type of a body, without parameters, in lower case; "" where none or several are named."""
    named = [value for name, value in headers if name == b"content-type"]
    return named[0].split(b";")[0].strip().lower().decode("latin-1") if len(named) == 1 else ""


def accepts(accept: str, media: str) -> bool:
    """Return whether the header field Accept names a media type."""
    return any(part.split(";")[0].strip().lower() == media for part in accept.split(","))
