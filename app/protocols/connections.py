"""The connections of a server: how many there may be, and how long the client of each may keep it waiting.

connection_made --> enter --- too many ---> 503
                      |
                    Watch <-- sweep, every second: does the client send its head or body, and read its answers?
                      |
connection_lost --> leave   (a WebSocket takes over the Watch of its HTTP connection)
"""

import asyncio
import ipaddress
import json
import logging
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import NamedTuple, Protocol

from uvicorn.protocols.utils import get_remote_addr

from app.errors import ConnectionsFull, EngramError

logger = logging.getLogger(__name__)

LEAST_RATE = 1024
"""Bytes per second that a client must send of a body, and read of an answer, on average of each timeout."""

SWEEP_SECONDS = 1.0
"""Time between two sweeps, at most; a timeout may be this much longer."""

CHECKED_AT_ONCE = 64
"""Connections that a sweep checks in one iteration of the event loop, at most: to refuse each takes some time."""

LINGER_SECONDS = 2.0
"""Time for a client that was refused to stop sending and to read the answer."""

MAX_LINGERING = 64
"""Refused clients that are given this time; the connections of the others are closed at once."""

QUIET_SECONDS = 60.0
"""Time between two lines in the log about refused connections."""

LARGE = 2**16
"""Bytes of a message that is not whole from which they are counted."""

WRITE_TIMEOUT = "write_timeout"
"""The code under which connections are counted that were aborted because their clients read nothing."""


@dataclass(frozen=True)
class Limits:
    """Limits of what a client may do with its connections: the settings of the same names, and their defaults."""

    max_target_bytes: int = 2**16
    max_header_bytes: int = 2**16
    max_header_fields: int = 256
    header_timeout: float = 10
    body_timeout: float = 30
    write_timeout: float = 30
    max_connections: int = 1000
    max_connections_per_address: int = 256
    max_control_frames: int = 100

    @property
    def sweep_seconds(self) -> float:
        """Seconds between two sweeps."""
        return min(SWEEP_SECONDS, min(self.header_timeout, self.body_timeout, self.write_timeout) / 4)


class Wait(NamedTuple):
    """A client that the server waits for.

    key: of what it waits for: another key is another wait. amount: bytes that have arrived. least: bytes after which
    the time begins again. timeout: in seconds.
    """

    key: Hashable
    timeout: float
    amount: int = 0
    least: float = 1


class Held(Protocol):
    """The bytes that are held for all clients, and their limit."""

    def add(self, size: int) -> None:
        """Hold `size` bytes more, also beyond the limit."""

    def try_add(self, size: int) -> bool:
        """Hold `size` bytes more if they fit within the limit; return whether they do."""

    def subtract(self, size: int) -> None:
        """Hold `size` bytes less."""


class Watched(Protocol):
    """A connection that is watched."""

    @property
    def drained(self) -> int:
        """How often the write buffer was full, and then no longer."""

    def wait(self) -> Wait | None:
        """Return what the server waits for; None: nothing that the client must do."""

    def time_out(self) -> None:
        """End the connection: the client took too long."""


class Watch:
    """A connection that was let in, with the times for which its client has made no progress."""

    def __init__(
        self, watched: Watched, transport: asyncio.Transport, address: str, leave: Callable[["Watch"], None]
    ) -> None:
        self.watched = watched
        self.address = address
        self._transport = transport
        self._leave = leave
        self._receiving = _Patience()
        self._sending = _Patience()

    def leave(self) -> None:
        """Forget the connection: it is closed."""
        self._leave(self)

    def check(self, now: float, write_timeout: float) -> str | None:
        """End the connection if its client takes too long. Return the code to count, if there is one."""
        unread = self._transport.get_write_buffer_size()
        reading = Wait(self.watched.drained, write_timeout, -unread, LEAST_RATE * write_timeout) if unread else None
        if self._sending.is_over(reading, now):
            self._transport.abort()
            return WRITE_TIMEOUT
        if self._receiving.is_over(self.watched.wait(), now):
            self.watched.time_out()
        return None


class _Patience:
    """The time since a client has last made progress."""

    def __init__(self) -> None:
        self._key: Hashable = None
        self._mark = 0.0  # the amount that is compared
        self._since = 0.0

    def is_over(self, wait: Wait | None, now: float) -> bool:
        """Return whether a client took longer than the timeout for what it does."""
        if wait is None:
            self._key = None
            return False
        if wait.key != self._key or wait.amount >= self._mark + wait.least:
            self._key, self._mark, self._since = wait.key, wait.amount, now
        self._mark = min(self._mark, wait.amount)  # a buffer that has grown
        return now - self._since >= wait.timeout


class Connections:
    """The open connections of a server. All methods are called on its event loop."""

    def __init__(
        self,
        limits: Limits,
        refused: Callable[[str], None] = lambda _: None,
        is_exempt: Callable[[str], bool] | None = None,
        frames: Held | None = None,
        answers: Held | None = None,
    ) -> None:
        """Make a server's connections, of which none is open yet.

        refused(code): called for each refusal. is_exempt(address): whether an address may have any number of
        connections; by default those of this machine. frames: holds the bytes of WebSocket messages that are not whole,
        from LARGE on; None: they have no limit together. answers: holds the bytes of answers that HTTP clients do not
        read; None: nothing does.
        """
        self.limits = limits
        self.refused = refused
        self.frames = frames
        self.answers = answers
        self._is_exempt = is_exempt or is_loopback
        self._watches: set[Watch] = set()
        self._of_address: Counter[str] = Counter()
        self._timer: asyncio.TimerHandle | None = None
        self._lingering = 0
        self._logged_at = -QUIET_SECONDS

    def enter(self, watched: Watched, transport: asyncio.Transport) -> Watch:
        """Let a new connection in, and watch it until it leaves. Raises ConnectionsFull."""
        remote = get_remote_addr(transport)
        address = network_of(remote[0]) if remote else ""
        self._check(address)
        watch = Watch(watched, transport, address, self._leave)
        self._watches.add(watch)
        self._of_address[address] += 1
        if self._timer is None:
            self._arm()
        return watch

    def _leave(self, watch: Watch) -> None:
        self._watches.discard(watch)
        self._of_address[watch.address] -= 1
        if not self._of_address[watch.address]:
            del self._of_address[watch.address]

    def linger(self, transport: asyncio.Transport) -> None:
        """Close a connection after its last bytes were written, even if its client goes on sending.

        To close a socket with unread bytes would reset it, and the client would lose the answer.
        """
        if self._lingering >= MAX_LINGERING or not end_writing(transport):
            transport.close()
            return
        self._lingering += 1
        asyncio.get_running_loop().call_later(LINGER_SECONDS, self._end, transport)

    def _end(self, transport: asyncio.Transport) -> None:
        self._lingering -= 1
        transport.abort()

    def _check(self, address: str) -> None:
        limits = self.limits
        if len(self._watches) >= limits.max_connections:
            self._refuse("in all", f"max_connections is {limits.max_connections}")
        if self._of_address[address] >= limits.max_connections_per_address and not self._is_exempt(address):
            self._refuse(
                f"of {address}", f"max_connections_per_address is {limits.max_connections_per_address}", address
            )

    def _refuse(self, whose: str, limit: str, address: str | None = None) -> None:
        count = len(self._watches) if address is None else self._of_address[address]
        now = asyncio.get_running_loop().time()
        if now - self._logged_at >= QUIET_SECONDS:
            self._logged_at = now
            logger.warning("connections are refused: %d are open %s, and %s", count, whose, limit)
        raise ConnectionsFull(f"{count} connections are open {whose}, and {limit}; close some, or try again later")

    def _arm(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self.limits.sweep_seconds, self._sweep)

    def _sweep(self) -> None:
        """Check all connections, and again later if there are any."""
        self._timer = None
        if self._watches:
            self._arm()
            self._check_some(list(self._watches), asyncio.get_running_loop().time())

    def _check_some(self, watches: Sequence[Watch], now: float) -> None:
        """Check CHECKED_AT_ONCE connections, and the others in the next iterations of the event loop."""
        if len(watches) > CHECKED_AT_ONCE:
            asyncio.get_running_loop().call_soon(self._check_some, watches[CHECKED_AT_ONCE:], now)
        for watch in watches[:CHECKED_AT_ONCE]:
            code = watch.check(now, self.limits.write_timeout) if watch in self._watches else None
            if code is not None:
                self.refused(code)


def end_writing(transport: asyncio.Transport) -> bool:
    """End the stream of bytes to a client after the last ones are written; return whether the client may still send."""
    try:
        transport.write_eof()
    except (NotImplementedError, OSError):  # TLS cannot do it; the client has reset the connection
        return False
    return True


def is_loopback(address: str) -> bool:
    """Return whether an address, or the name of a network, is one of this machine."""
    return address.startswith("127.") or address in ("", "::1", str(ipaddress.ip_network("::1/64", strict=False)))


def network_of(host: str) -> str:
    """Return the address that connections are counted by: of IPv6 the first 64 bits, which one client may have."""
    if ":" not in host:
        return host
    address = ipaddress.IPv6Address(host.partition("%")[0])
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))


def refusal(error: EngramError) -> bytes:
    """Return the HTTP response of an error after which the connection is closed.

    Its path may not be known: the document has `error` too, for clients of the Open Inference Protocol.
    """
    body = json.dumps(error.problem() | {"error": error.detail}, separators=(",", ":")).encode()
    fields = {
        "date": formatdate(usegmt=True),
        "content-type": "application/problem+json",
        "content-length": str(len(body)),
        "connection": "close",
        **error.headers,
    }
    lines = [f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}"]
    lines += [f"{name.lower()}: {value}" for name, value in fields.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body
