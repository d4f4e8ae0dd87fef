"""Requests that are sent until they are answered, or until the time is over."""

import os
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from engram_client.errors import Lost, problem_in, refusal
from engram_client.messages import reading
from engram_client.retries import Tries
from engram_client.wires import Request, Wire

T = TypeVar("T")

KEY_VARIABLE = "ENGRAM_KEY"
"""The variable of the environment with the key of clients that are given none."""


class Connection:
    """A server, and requests to it that are sent until they are answered: the base of AsyncClient.

    url: http://HOST:PORT, or https. timeout: seconds for which a call is tried until there is an answer, math.inf for
    ever. Raises ValueError for another url or timeout.
    """

    _wire: Wire

    def __init__(self, url: str, timeout: float) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"url: expected http://HOST:PORT or https://HOST:PORT, got {url!r}")
        if not timeout > 0:
            raise ValueError(f"timeout: expected seconds above 0, or math.inf, got {timeout!r}")
        self.url = url.rstrip("/")
        self.timeout = timeout

    def _tries(self) -> Tries:
        return Tries(self.url, self.timeout)

    async def _send(self, request: Request, read: Callable[[bytes], T], tries: Tries | None = None) -> T:
        """Send a request until it is answered, and return what `read` makes of the body. Raises EngramClientError."""
        return await self._persist(lambda tries: self._once(request, read, tries), tries or self._tries())

    async def _once(self, request: Request, read: Callable[[bytes], T], tries: Tries) -> T:
        """Send a request once. Raises Lost without an answer, or with one that says "not now"; EngramClientError."""
        answer = await self._wire.request(request, tries.left)
        if answer.status >= 300:
            raise refusal(problem_in(answer.status, answer.content), answer.headers.get("Retry-After", ""))
        with reading(answer.content):
            return read(answer.content)

    async def _persist(self, once: Callable[[Tries], Awaitable[T]], tries: Tries) -> T:
        """Retry until an answer comes. Raises Unreachable after `timeout` seconds without one."""
        while True:
            try:
                return await once(tries)
            except Lost as lost:
                pause = tries.pause(lost)
            await self._wire.pause(pause)


def with_key(headers: Mapping[str, str] | None, key: str | None) -> dict[str, str]:
    """Return the headers of every request: those given, and that of the key. Raises ValueError, without the key.

    key: None takes that of ENGRAM_KEY, unless there is an Authorization among the headers; an empty one is none.
    """
    given = dict(headers or {})
    is_authorized = "authorization" in map(str.lower, given)
    if key is None:
        key = "" if is_authorized else os.environ.get(KEY_VARIABLE, "")
    elif key and is_authorized:
        raise ValueError("key: the headers have an Authorization already; give one of the two")
    key = key.strip()
    if not key:
        return given
    if not re.fullmatch("[!-~]+", key):
        raise ValueError("key: expected printable ASCII characters without spaces, as engram keys create prints")
    return given | {"Authorization": f"Bearer {key}"}
