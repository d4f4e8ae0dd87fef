"""A small model of RFC 6455: what a server may do with the bytes that a client sends on an open WebSocket.

It is written after the RFC and without a look at the server's code, which it judges.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from benchmarks.hostile.wire import BINARY, CLOSE, PING, PONG, TEXT

CONTINUATION = 0

REGISTERED = frozenset((1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014))
"""Close codes below 3000 that a frame may have (7.4.1, and IANA's registry)."""

PROTOCOL_ERROR, NOT_UTF8, TOO_LARGE = 1002, 1007, 1009

REFUSED = frozenset((4400, 4413, 4422))
"""Codes by which the application closes for a message that it does not accept."""


class Message(NamedTuple):
    """A whole message of a client."""

    opcode: int
    payload: bytes


@dataclass
class Verdict:
    """The answer that must come to a client's bytes.

    codes: of the close frames that the server may send; empty: it stays open. sure: it sends one of them. whole: the
    last frame is complete. pongs: the payloads of its pongs, in order. accepted: the number of good messages, which it
    answers; others: that of other messages, which may be good by chance. Where it closes, pongs and answers may be
    missing from the end.
    """

    codes: set[int] = field(default_factory=set)
    sure: bool = True
    whole: bool = True
    pongs: list[bytes] = field(default_factory=list)
    accepted: int = 0
    others: int = 0
    frames: int = 0

    @property
    def is_good(self) -> bool:
        """Whether the server has nothing to close for, and nothing more to wait for."""
        return self.whole and not self.codes

    @property
    def may_stay_open(self) -> bool:
        """Whether the server may wait for more, unless the stream of bytes ends."""
        return not self.is_good and not self.others and not (self.codes and self.sure)


class _Fault(Exception):
    """Bytes after which the server must close, with one of these codes."""

    def __init__(self, *codes: int) -> None:
        super().__init__(codes)
        self.codes = codes


class _Frame(NamedTuple):
    opcode: int
    fin: bool
    payload: bytes


def judge(data: bytes, good: Message, limit: int) -> Verdict:
    """Return the verdict on a client's bytes.

    good: the one message that the application accepts; limit: bytes of a message, at most.
    """
    verdict = Verdict()
    try:
        _read(data, good, limit, verdict)
    except _Fault as fault:
        verdict.codes.update(fault.codes)
    return verdict


def _read(data: bytes, good: Message, limit: int, verdict: Verdict) -> None:
    started, message = CONTINUATION, b""
    for frame in _frames(data, limit, verdict):
        if frame.opcode == CLOSE:
            raise _Fault(*_close_codes(frame.payload))
        if frame.opcode == PING:
            verdict.pongs.append(frame.payload)
        if frame.opcode >= CLOSE:
            continue
        started, message = frame.opcode or started, message + frame.payload
        if frame.fin:
            _take(Message(started, message), good, verdict)
            started, message = CONTINUATION, b""


def _take(message: Message, good: Message, verdict: Verdict) -> None:
    """Judge a whole message: after a refused one, the server may close before it reads on, or not."""
    if message.opcode == TEXT:
        try:
            message.payload.decode()
        except UnicodeDecodeError:
            raise _Fault(NOT_UTF8) from None
    if message != good:
        verdict.others += 1
        verdict.codes |= REFUSED
        verdict.sure = False
    else:
        verdict.accepted += 1


def _frames(data: bytes, limit: int, verdict: Verdict) -> Iterator[_Frame]:
    """Yield the frames of a client's bytes. Raises _Fault."""
    started, size, start = False, 0, 0
    while start < len(data):
        verdict.frames += 1
        head = data[start : start + 2]
        if len(head) < 2:
            break
        opcode, fin = head[0] & 0xF, head[0] >= 0x80
        _check_head(head, started)
        extra = {126: 2, 127: 8}.get(head[1] & 0x7F, 0)
        body = start + 2 + extra + 4
        if len(data) < start + 2 + extra:
            break
        length = int.from_bytes(data[start + 2 : start + 2 + extra]) if extra else head[1] & 0x7F
        if length >= 2**63:
            raise _Fault(PROTOCOL_ERROR, TOO_LARGE)
        if (extra == 2 and length < 126) or (extra == 8 and length < 2**16):  # 5.2: the shortest form is a must
            verdict.codes.add(PROTOCOL_ERROR)
            verdict.sure = False
        if opcode < CLOSE:
            size += length
            if size > limit:
                raise _Fault(TOO_LARGE)
        if len(data) < body + length:
            break
        mask = data[body - 4 : body]
        yield _Frame(opcode, fin, bytes(byte ^ mask[at % 4] for at, byte in enumerate(data[body : body + length])))
        if opcode < CLOSE:
            started = not fin
            size = size if started else 0
        start = body + length
    else:
        return
    verdict.whole = False


def _check_head(head: bytes, started: bool) -> None:
    """Raise _Fault unless a frame may begin with these two bytes."""
    opcode, fin, length = head[0] & 0xF, head[0] >= 0x80, head[1] & 0x7F
    if head[0] & 0x70 or head[1] < 0x80 or opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
        raise _Fault(PROTOCOL_ERROR)
    if opcode >= CLOSE:
        if not fin or length > 125:
            raise _Fault(PROTOCOL_ERROR)
    elif started is not (opcode == CONTINUATION):
        raise _Fault(PROTOCOL_ERROR)


def _close_codes(payload: bytes) -> set[int]:
    """Return the codes that the answer to a close frame may have; 1005: a frame without one."""
    code, faults = int.from_bytes(payload[:2]), set()
    if len(payload) == 1 or (payload and not (code in REGISTERED or 3000 <= code < 5000)):
        faults.add(PROTOCOL_ERROR)
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        faults.add(NOT_UTF8)
    return faults or {code if payload else 1005}
