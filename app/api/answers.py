"""Responses of the routes: documents, documents of many numbers, files."""

from typing import Any

from fastapi import Response
from fastapi.responses import StreamingResponse

from app.api.codec import (
    PIECE_BYTES,
    array_bytes,
    encode_json,
    encode_msgpack,
    in_turns,
    json_pieces,
    msgpack_pieces,
    slices,
)
from app.api.media import MSGPACK, SAFETENSORS
from app.forces import force_document
from app.sessions.service import SessionService
from app.sessions.session import SessionInfo


def answer(document: Any, status: int = 200) -> Response:
    """Return a document, with arrays anywhere in it, as JSON."""
    return Response(encode_json(document), status, media_type="application/json")


def answer_numbers(document: Any) -> Response:
    """Return a document of arrays as JSON, encoded in pieces while it is sent if it is large."""
    if array_bytes(document) <= PIECE_BYTES:
        return answer(document)
    return StreamingResponse(in_turns(json_pieces(document)), media_type="application/json")


def answer_msgpack(document: Any) -> Response:
    """Return a document of arrays as msgpack, encoded in pieces while it is sent if it is large."""
    if array_bytes(document) <= PIECE_BYTES:
        return Response(encode_msgpack(document), media_type=MSGPACK)
    return StreamingResponse(in_turns(msgpack_pieces(document)), media_type=MSGPACK)


def answer_file(data: bytes) -> Response:
    """Return a safetensors file, sent in pieces."""
    headers = {"Content-Length": str(len(data))}
    return StreamingResponse(in_turns(slices(data)), headers=headers, media_type=SAFETENSORS)


def answer_opened(session: SessionInfo, sessions: SessionService, place: str) -> Response:
    """Return the response with an opened session; place: of all sessions, relative to the URL of the request."""
    response = answer(session_document(session, sessions), 201)
    response.headers["Location"] = f"{place}{session.id}"
    return response


def session_document(session: SessionInfo, sessions: SessionService) -> dict[str, Any]:
    return {
        "id": session.id,
        "model": session.model,
        "memory_size": session.memory_size,
        "step": session.step,
        "seq": session.seq,
        "latest": session.latest,
        "oldest": session.oldest,
        "opened": session.opened,
        "idle_seconds": sessions.idle_seconds(session),
        "expires_in": sessions.expires_in(session),
        "force": force_document(session.force),
    }
