"""WebSocket frames (RFC 6455) without I/O: read messages from a client's bytes, and write a server's frames."""

import struct
from typing import Final

from websockets.exceptions import ProtocolError
from websockets.frames import Close

try:
    from websockets.speedups import apply_mask
except ImportError:  # websockets was installed without its extension in C
    from websockets.utils import apply_mask

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

FINAL_BIT = 0x80
RESERVED_BITS = 0x70
MASK_BIT = 0x80

MAX_CONTROL = 125
"""Largest payload of a control frame, in bytes."""

MAX_REASON = MAX_CONTROL - 2
"""Longest reason in a close frame, in bytes of UTF-8."""

COPIED = 4096
"""Up to this many bytes, a payload is sliced by a copy: a view is cheaper only for longer ones."""

WHOLE = frozenset((FINAL_BIT | TEXT, FINAL_BIT | BINARY))
"""First bytes of frames that are whole messages."""

SHORT_HEADS = {opcode: [bytes([FINAL_BIT | opcode, length]) for length in range(126)] for opcode in (TEXT, BINARY)}
"""Heads of a server's frames that are whole messages, by the length of the payload."""


class FrameError(Exception):
    """A client's bytes break the protocol. code: of the close frame (RFC 6455, 7.4.1); reason: its text."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


class FrameReader:
    """Reads messages, one by one, from the bytes of a client.

    It holds at most one message of `limit` bytes, and the bytes that were fed last: a frame that would make its message
    longer is refused as soon as its head is there.
    """

    def __init__(self, limit: int) -> None:
        """Limit a message to `limit` bytes."""
        self._limit = limit
        self._data: bytes | bytearray = b""
        self._start = 0  # of the next frame in _data
        self._opcode = CONTINUATION  # of the fragments so far; CONTINUATION: there are none
        self._fragments = bytearray()
        self.last_fragment = 0
        """Bytes of the fragment that was read last."""

    @property
    def unread(self) -> int:
        """The number of bytes that were fed and are not read."""
        return len(self._data) - self._start

    @property
    def held(self) -> int:
        """The number of bytes that are held: those of fragments, and those that are not read."""
        return len(self._data) - self._start + len(self._fragments)

    def feed(self, data: bytes) -> None:
        """Add bytes from the client."""
        if not self.unread:
            self._data, self._start = data, 0
            return
        if isinstance(self._data, bytearray):
            del self._data[: self._start]
        else:
            self._data = bytearray(memoryview(self._data)[self._start :])
        self._start = 0
        self._data += data

    def clear(self) -> None:
        """Drop all bytes that are not read."""
        self._data, self._start = b"", 0
        self._fragments = bytearray()

    def read(self, control_only: bool = False) -> tuple[int, bytes] | None:
        """Return the next message and its opcode: TEXT or BINARY, its fragments joined, or CLOSE, PING or PONG.

        CONTINUATION, without a payload: a fragment was read, and its message is not complete. None: more bytes are
        needed, or, with `control_only`, the next frame is no control frame. The payload of TEXT is valid UTF-8. Raises
        FrameError; nothing can be read after that.
        """
        frame = self._read_frame(control_only)
        if frame is None:
            return None
        first, payload = frame
        opcode = first & 0xF
        if opcode >= CLOSE:
            return opcode, payload
        if first & FINAL_BIT and opcode:
            return (opcode, payload) if opcode == BINARY or payload.isascii() else _decodable(payload)
        self._fragments += payload
        self.last_fragment = len(payload)
        self._opcode = opcode or self._opcode
        return self._joined() if first & FINAL_BIT else (CONTINUATION, b"")

    def _read_frame(self, control_only: bool) -> tuple[int, bytes] | None:
        """Return the first byte and the payload of the next frame, or None."""
        data, start = self._data, self._start
        if len(data) - start < 2:
            return None
        first, length = data[start], data[start + 1] ^ MASK_BIT
        if control_only and first & 0xF < CLOSE:
            return None
        if self._opcode or length > 127 or first not in WHOLE:
            self._check_head(first, length)
        head = start + 6
        if length > MAX_CONTROL:
            head += 2 if length == 126 else 8
            if len(data) < head - 4:
                return None
            length = int.from_bytes(data[start + 2 : head - 4], "big")
        if first & 0xF < CLOSE and length + len(self._fragments) > self._limit:
            raise FrameError(1009, f"a message has at most {self._limit} bytes")
        end = head + length
        if len(data) < end:
            return None
        mask = data[head - 4 : head]
        payload = apply_mask(data[head:end], mask) if length <= COPIED else _unmask(data, head, end, mask)
        self._data, self._start = (data, end) if end < len(data) else (b"", 0)
        return first, payload

    def _check_head(self, first: int, length: int) -> None:
        """Raise FrameError unless a frame may begin with these bytes. length: the second one, its mask bit flipped."""
        opcode = first & 0xF
        if first & RESERVED_BITS:
            raise FrameError(1002, "a reserved bit is set, and no extension was agreed on")
        if length & MASK_BIT:
            raise FrameError(1002, "a client's frames must be masked")
        if opcode >= CLOSE:
            if opcode > PONG:
                raise FrameError(1002, f"there is no opcode {opcode}")
            if length > MAX_CONTROL or not first & FINAL_BIT:
                raise FrameError(1002, f"a control frame has one fragment, of at most {MAX_CONTROL} bytes")
        elif opcode > BINARY:
            raise FrameError(1002, f"there is no opcode {opcode}")
        elif (opcode == CONTINUATION) != (self._opcode != CONTINUATION):
            expected = "a continuation" if opcode else "a new message"
            raise FrameError(1002, f"expected {expected}, got opcode {opcode}")

    def _joined(self) -> tuple[int, bytes]:
        opcode, payload = self._opcode, bytes(self._fragments)
        self._opcode, self._fragments = CONTINUATION, bytearray()
        return (opcode, payload) if opcode == BINARY else _decodable(payload)


def _decodable(payload: bytes) -> tuple[int, bytes]:
    """Return TEXT and its payload. Raises FrameError if it is not UTF-8."""
    try:
        payload.decode()
    except UnicodeDecodeError as error:
        raise FrameError(1007, f"text is not UTF-8 at byte {error.start}") from None
    return TEXT, payload


def _unmask(data: bytes | bytearray, start: int, end: int, mask: bytes | bytearray) -> bytes:
    with memoryview(data) as whole, whole[start:end] as payload:
        return apply_mask(payload, mask)


def head(opcode: int, length: int, final: int = FINAL_BIT) -> bytes:
    """Return the head of a server's frame with a payload of `length` bytes; final: 0 if its message goes on."""
    if length < 126:
        return bytes([final | opcode, length])
    if length < 2**16:
        return struct.pack("!BBH", final | opcode, 126, length)
    return struct.pack("!BBQ", final | opcode, 127, length)


def close_payload(code: int, reason: str) -> bytes:
    """Return the payload of a close frame; a reason that is too long is truncated.

    Raises ValueError for a code that no frame may have (RFC 6455, 7.4).
    """
    short = reason.encode()[:MAX_REASON].decode(errors="ignore")
    try:
        return Close(code, short).serialize()
    except ProtocolError as error:
        raise ValueError(f"close code {code}: {error}") from None


def read_close(payload: bytes) -> tuple[int, str]:
    """Return the code and the reason of a client's close frame, (1005, "") if it has none. Raises FrameError."""
    try:
        close = Close.parse(payload)
    except ProtocolError as error:
        raise FrameError(1002, str(error)) from None
    except UnicodeDecodeError:
        raise FrameError(1007, "the reason of a close frame is not UTF-8") from None
    return int(close.code), close.reason
