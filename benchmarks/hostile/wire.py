"""Raw bytes over a socket: what a server sends, read without a library that hides faults."""

import base64
import contextlib
import json
import socket
from dataclasses import dataclass
from typing import Any, Final, Self

TIMEOUT = 20.0
"""Seconds within which a server must answer or close."""

TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10

KEY = base64.b64encode(bytes(16)).decode()


class Silent(Exception):
    """A server that neither answered nor closed in time."""


class Wire:
    """A TCP connection to a server. Sending never raises: the server may have closed already."""

    def __init__(self, address: str, timeout: float = TIMEOUT) -> None:
        """address: host and port; timeout: seconds that the server may be silent."""
        host, _, port = address.rpartition(":")
        self.address = address
        self._socket = socket.create_connection((host, int(port)), timeout=timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, *pieces: bytes) -> None:
        """Send each piece as a segment of its own."""
        try:
            for piece in pieces:
                self._socket.sendall(piece)
        except TimeoutError:
            raise Silent("the server stopped reading") from None
        except OSError:
            pass

    def end(self) -> None:
        """Send the end of the stream; what the server sends can still be read."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def read(self, length: int = -1) -> bytes:
        """Return the next bytes, fewer at the end of the connection; -1: all. Raises Silent."""
        try:
            return self._file.read(length)
        except TimeoutError:
            raise Silent("the server neither answered nor closed in time") from None
        except OSError:
            return b""

    def line(self) -> bytes:
        """Return the next line with its end, or what there is before the end of the connection. Raises Silent."""
        try:
            return self._file.readline()
        except TimeoutError:
            raise Silent("the server neither answered nor closed in time") from None
        except OSError:
            return b""

    def close(self) -> None:
        self._file.close()
        self._socket.close()


@dataclass(frozen=True)
class Reply:
    """An HTTP response: its status, fields by their names in lower case, and its body."""

    status: int
    fields: dict[str, str]
    body: bytes

    def document(self) -> Any:
        return json.loads(self.body)


def read_reply(wire: Wire, head_only: bool = False) -> Reply | None:
    """Return the next response, None at the end of the connection.

    head_only: whether it answers HEAD, or an upgrade. Raises ValueError for bytes that are no response, Silent.
    """
    first = wire.line()
    if not first:
        return None
    version, status, *_ = first.split(b" ", 2)
    if version != b"HTTP/1.1":
        raise ValueError(f"expected a response, got {first[:80]!r}")
    lines = iter(wire.line, b"\r\n")
    fields = {}
    for line in lines:
        if not line:
            raise ValueError("the connection ended within the head of a response")
        name, _, value = line.decode("latin-1").partition(":")
        fields[name.lower()] = value.strip()
    empty = head_only or status[:1] == b"1" or status in (b"204", b"304")
    return Reply(int(status), fields, b"" if empty else _body(wire, fields))


def _body(wire: Wire, fields: dict[str, str]) -> bytes:
    if fields.get("transfer-encoding") == "chunked":
        return b"".join(iter(lambda: _chunk(wire), b""))
    return wire.read(int(fields["content-length"])) if "content-length" in fields else wire.read()


def _chunk(wire: Wire) -> bytes:
    size = int(wire.line(), 16)
    data = wire.read(size)
    wire.line()
    return data


def handshake(address: str, path: str, protocol: str) -> bytes:
    """Return the request for a WebSocket."""
    fields = (
        f"Host: {address}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {KEY}",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Protocol: {protocol}",
    )
    return "\r\n".join([f"GET {path} HTTP/1.1", *fields, "", ""]).encode()


def read_frame(wire: Wire) -> tuple[int, bytes] | None:
    """Return the opcode and the payload of the next frame, None at the end of the connection.

    Raises ValueError for a frame that no server may send: RSV bits, a mask, a long control frame. Raises Silent.
    """
    head = wire.read(2)
    if len(head) < 2:
        return None
    first, length = head
    if first & 0x70 or length & 0x80 or (first & 8 and (length > 125 or not first & 0x80)):
        raise ValueError(f"the server sent a frame that begins with {head.hex()}")
    if length > 125:
        length = int.from_bytes(wire.read(2 if length == 126 else 8), "big")
    return first & 0xF, wire.read(length)


def masked(
    first: int, payload: bytes, mask: bytes = b"\1\2\3\4", length: bytes | None = None, bare: bool = False
) -> bytes:
    """Return a client's frame. first: its first byte; length: its length field, by default the right one.

    bare: leave out the mask, as no client may.
    """
    if length is None:
        length = length_field(len(payload))
    if bare:
        return bytes([first]) + length + payload
    key = (mask * (len(payload) // 4 + 1))[: len(payload)]
    hidden = (int.from_bytes(payload) ^ int.from_bytes(key)).to_bytes(len(payload))
    return bytes([first, length[0] | 0x80]) + length[1:] + mask + hidden


def length_field(length: int) -> bytes:
    """Return the shortest length field of a frame, without the bit of the mask."""
    if length < 126:
        return bytes([length])
    return b"\x7e" + length.to_bytes(2) if length < 2**16 else b"\x7f" + length.to_bytes(8)
