"""A client of Engram's server that takes every step once, whatever happens to its connections.

    with Client("http://127.0.0.1:8000") as client:
        session = client.open("dnc-copy")
        outputs = session.run(inputs).outputs             # over HTTP
        with session.stream() as stream:                  # over WebSocket
            for stepped in stream.map(sequences): ...     # several under way at a time

`AsyncClient` is the same with async and await. How the client finds out, after a connection was lost, whether the
server has carried a request out:

    sent                  lost    carried out    sent again
    steps, if_step 3 ----X        no             the answer
    steps, if_step 3 ------> 4..8 yes            409, the session is at step 8: the recording of steps 4 to 8 has these
                        X---                     inputs, and so the outputs are there; with others it is a conflict
    frame 7          ----X        no             greeted with 6, the last frame that was carried out; the answer
    frame 7          ------> 4..8 yes            greeted with 7; the answer, from the recording
                        X---

Each of this is written once, as coroutines over a `Wire`. That of `AsyncClient` waits in asyncio. That of `Client`
blocks the thread, so its coroutines never suspend: one step takes each to its end (`blocking.now`).
"""

from engram_client.cards import Card
from engram_client.client import AsyncClient, Client
from engram_client.errors import (
    AnswerLost,
    Conflict,
    EngramClientError,
    Forbidden,
    InvalidKey,
    InvalidRequest,
    NotFound,
    ServerError,
    SessionGone,
    TooManyRequests,
    Unreachable,
)
from engram_client.many import ManyStepped
from engram_client.recordings import Recording
from engram_client.results import Episode, Recorded, Result, Stepped
from engram_client.sessions import AsyncSession, Session
from engram_client.streams import AsyncStream, Stream

__all__ = [
    "AnswerLost",
    "AsyncClient",
    "AsyncSession",
    "AsyncStream",
    "Card",
    "Client",
    "Conflict",
    "EngramClientError",
    "Episode",
    "Forbidden",
    "InvalidKey",
    "InvalidRequest",
    "ManyStepped",
    "NotFound",
    "Recorded",
    "Recording",
    "Result",
    "ServerError",
    "Session",
    "SessionGone",
    "Stepped",
    "Stream",
    "TooManyRequests",
    "Unreachable",
]
