"""Keys: what one is, and the caller that it makes of a client.

engram_0f3a9c417be2_6d1f...      the key as its owner has it, shown once
       |            |
       id           256 random bits

Key      the key as a store has it: its SHA-256 digest, its tenant, its scopes, its limits
Caller   a valid key in a running server, with its budgets: one object for all of its connections
"""

import copy
import hashlib
import math
import re
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from hmac import compare_digest
from typing import Any, NamedTuple

from app.access.buckets import Clock, OpenStreams, StepsBucket
from app.errors import EngramError, InvalidInput
from app.futures import report
from app.tenants import DEFAULT

SCOPES = {
    "infer": "the models, and whole sequences from a fresh state",
    "sessions": "the models, and the sessions of the key's tenant",
    "admin": "metrics, and the administration of the server; no sessions of other tenants",
}
"""The scopes, and the requests that each allows."""

TENANT = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")

LONGEST_NAME = 200
"""Characters of the name of a key, at most."""

LEAST_LIMIT, GREATEST_LIMIT = 1e-6, 2**53
"""Limits that make sense: the time until a step is allowed is finite, and a store keeps whole numbers exactly."""

PREFIX = b"engram"

ID_BYTES, SECRET_BYTES = 6, 32

FILE_ID = "file"
"""The id of the key in the key file; those of other keys are hexadecimal."""


class KeyLimits(NamedTuple):
    """The limits of a key, beside those of the server's settings; None for no limit."""

    max_sessions: int | None = None
    """Open sessions of the key's tenant."""
    steps_per_second: float | None = None
    """Steps of all sequences and sessions together."""
    max_batch: int | None = None
    """Sequences or sessions in one request."""
    max_steps: int | None = None
    """Steps in one sequence."""
    max_streams: int | None = None
    """Open WebSockets of the key."""

    def check_batch(self, count: int, place: str) -> None:
        """Raise InvalidInput where a request has more than `max_batch` sequences or sessions."""
        if self.max_batch is not None and count > self.max_batch:
            raise _over_limit(place, "max_batch", f"at most {self.max_batch}", count)

    def check_steps(self, steps: int, place: str) -> None:
        """Raise InvalidInput where a sequence has more than `max_steps` steps."""
        if self.max_steps is not None and steps > self.max_steps:
            raise _over_limit(place, "max_steps", f"at most {self.max_steps} steps", steps)


def _over_limit(place: str, limit: str, expected: str, count: int) -> InvalidInput:
    return InvalidInput(
        f"{place}: {expected} are accepted at a time (the key's limit {limit}), but {count} came",
        place=place,
        expected=expected,
        got=str(count),
    )


NO_LIMITS = KeyLimits()


@dataclass(frozen=True)
class Key:
    """A key as a store has it.

    digest: SHA-256 of the whole key. name: its owner's words for it. created, revoked: Unix time in seconds; revoked is
    None for a valid key. Raises ValueError for a tenant, a scope, a limit or a name that cannot be.
    """

    id: str
    digest: bytes
    tenant: str
    scopes: frozenset[str]
    limits: KeyLimits = NO_LIMITS
    name: str = ""
    created: float = 0.0
    revoked: float | None = None

    def __post_init__(self) -> None:
        check_tenant(self.tenant)
        _check_scopes(self.scopes)
        for limit, value in self.limits._asdict().items():
            _check_limit(limit, value)
        if len(self.name) > LONGEST_NAME or not self.name.isprintable():
            raise ValueError(f"name {self.name[:LONGEST_NAME]!r}: expected at most {LONGEST_NAME} printable characters")


def check_tenant(tenant: str) -> None:
    """Raise ValueError for a text that cannot be the name of a tenant."""
    if not TENANT.fullmatch(tenant):
        raise ValueError(
            f"tenant {tenant[:LONGEST_NAME]!r}: expected 1 to 63 lower-case letters, digits and hyphens, the first no "
            "hyphen, such as team-a"
        )


def _check_scopes(scopes: frozenset[str]) -> None:
    unknown = sorted(scopes - SCOPES.keys())
    if unknown:
        raise ValueError(f"scope {unknown[0]!r}: there is no such scope; expected some of {', '.join(SCOPES)}")
    if not scopes:
        raise ValueError(f"scopes: expected at least one of {', '.join(SCOPES)}")


def _check_limit(name: str, value: Any) -> None:
    if value is not None and not 0 < value < math.inf:
        raise ValueError(f"limit {name}: expected a number above 0, or none for no limit, got {value!r}")
    if value is not None and not LEAST_LIMIT <= value <= GREATEST_LIMIT:
        raise ValueError(
            f"limit {name}: expected a number from {LEAST_LIMIT} to {GREATEST_LIMIT}, or none for no limit, "
            f"got {value!r}"
        )


def new_key(
    tenant: str = DEFAULT, scopes: Iterable[str] = SCOPES, limits: KeyLimits = NO_LIMITS, name: str = ""
) -> tuple[Key, str]:
    """Return a new key for a store, and the key itself, which is not kept anywhere. Raises ValueError as Key does."""
    key_id = secrets.token_hex(ID_BYTES)
    token = f"{PREFIX.decode()}_{key_id}_{secrets.token_hex(SECRET_BYTES)}"
    return Key(key_id, digest_of(token.encode()), tenant, frozenset(scopes), limits, name, time.time()), token


def id_of(token: bytes) -> bytes:
    """Return the id in a key, and that of the key file's for one of another form."""
    parts = token.split(b"_", 2)
    return parts[1] if len(parts) == 3 and parts[0] == PREFIX else FILE_ID.encode()


def digest_of(token: bytes) -> bytes:
    """Return the digest by which a key is stored: it has 256 random bits, so a fast hash cannot be searched."""
    return hashlib.sha256(token).digest()


def is_digest_of(digest: bytes, token: bytes) -> bool:
    """Return whether a digest is that of a key, in a time that does not depend on where they differ."""
    return compare_digest(digest, hashlib.sha256(token).digest())


OnEnd = Callable[[EngramError], None]
"""Called with the error that requests with the key get from now on."""


class Caller:
    """A client of the server: its tenant, and what it may do; the event loop alone uses it.

    key_id: None for a client without a key, where none is required. steps, streams: its budgets.
    """

    __slots__ = ("_watchers", "ended", "key_id", "limits", "scopes", "steps", "streams", "tenant")

    def __init__(
        self,
        tenant: str,
        scopes: frozenset[str],
        limits: KeyLimits = NO_LIMITS,
        key_id: str | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self.tenant = tenant
        self.scopes = scopes
        self.limits = limits if any(limits) else NO_LIMITS
        self.key_id = key_id
        self.steps = StepsBucket(limits.steps_per_second, clock)
        self.streams = OpenStreams(limits.max_streams)
        self.ended: EngramError | None = None
        """The error of requests with this key since it is not valid any more, None while it is."""
        self._watchers: dict[object, OnEnd] = {}

    def check(self) -> None:
        """Raise the error that requests with this key get, if it is valid no more."""
        if self.ended is not None:
            raise copy.copy(self.ended)  # one that many requests raise would grow by their tracebacks

    def take_steps(self, sequences: Collection[Sized]) -> None:
        """Take the steps of a request's sequences out of the budget. Raises InvalidInput, RateLimited."""
        self.steps.take(self._checked(sequences))

    def reserve_steps(self, sequences: Collection[Sized]) -> float:
        """Take steps out of the budget, also such as it does not have yet; return the seconds to wait for them.

        Raises InvalidInput.
        """
        return self.steps.reserve(self._checked(sequences))

    def _checked(self, sequences: Collection[Sized]) -> int:
        """Return the number of steps of sequences that the key's limits allow."""
        if self.limits is NO_LIMITS:
            return 0
        self.limits.check_batch(len(sequences), "inputs")
        lengths = list(map(len, sequences))
        self.limits.check_steps(max(lengths, default=0), "inputs")
        return sum(lengths)

    @contextmanager
    def stream(self, on_end: OnEnd) -> Iterator[None]:
        """Count a WebSocket, and watch the key for it, as long as the context lasts. Raises StreamsFull."""
        self.streams.enter()
        unwatch = self.watch(on_end)
        try:
            yield
        finally:
            unwatch()
            self.streams.leave()

    def watch(self, on_end: OnEnd) -> Callable[[], None]:
        """Have `on_end` called once when the key is not valid any more, at once if that is so already.

        Returns a function that ends the watch. An error of `on_end` is logged.
        """
        watch = object()
        if self.ended is None:
            self._watchers[watch] = on_end
        else:
            report(on_end, self.ended)
        return lambda: self._unwatch(watch)

    def _unwatch(self, watch: object) -> None:
        self._watchers.pop(watch, None)

    def end(self, error: EngramError) -> None:
        """Call everybody who watches; a second call does nothing."""
        if self.ended is not None:
            return
        self.ended = error
        watchers, self._watchers = self._watchers, {}
        for on_end in watchers.values():
            report(on_end, error)
