"""The recording of a session as lines of JSON."""

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from app.access.keys import Caller
from app.api.codec import PIECE_BYTES, array_bytes, encode_json, in_turns
from app.errors import EngramError
from app.forces import force_document
from app.sessions.past import Piece

PIECES = 2
"""Pieces in memory at a time: one is computed while the last is sent."""


async def recording_lines(
    first: Piece | None, rest: AsyncIterator[Piece], caller: Caller, force: str | None = None
) -> AsyncIterator[bytes]:
    """Yield a line for each step, several at a time, and a last one with the error if one occurs.

    first: the first piece, which was waited for; None for a recording without steps. caller: whose key must stay valid.
    force: the gates that the session holds at values, which each line then has too.
    """
    if first is None:
        return
    try:
        async for piece in _chained(first, rest):
            async for lines in in_turns(piece_lines(piece, force)):
                yield lines
                caller.check()  # a client may read for hours
    except EngramError as error:
        yield encode_json({"error": error.problem()}) + b"\n"


async def _chained(first: Piece, rest: AsyncIterator[Piece]) -> AsyncIterator[Piece]:
    yield first
    async for piece in rest:
        yield piece


def piece_lines(piece: Piece, force: str | None = None) -> Iterator[bytes]:
    """Yield the lines of the steps, several at a time, with about PIECE_BYTES of numbers."""
    step = piece.inputs[0].nbytes + array_bytes({**piece.result.trace, "": piece.result.outputs}) // len(piece.inputs)
    rows = max(1, PIECE_BYTES // step)
    forced = {} if force is None else {"force": force_document(force)}
    for start in range(0, len(piece.inputs), rows):
        yield b"".join(_step_line(piece, row, forced) for row in range(len(piece.inputs))[start : start + rows])


def _step_line(piece: Piece, row: int, forced: Mapping[str, Any]) -> bytes:
    line = {
        "step": piece.step + row + 1,
        "seq": piece.seqs[row],
        "inputs": piece.inputs[row],
        "outputs": piece.result.outputs[row],
        "trace": {name: values[row] for name, values in piece.result.trace.items()},
        **forced,
    }
    return encode_json(line) + b"\n"
