"""Random bytes of a client on an open WebSocket: good frames and broken ones, in a row."""

import random
from collections.abc import Callable

from benchmarks.hostile.rfc6455 import CONTINUATION, REGISTERED, Message
from benchmarks.hostile.wire import BINARY, CLOSE, PING, PONG, TEXT, length_field, masked

FIN = 0x80

BROKEN_UTF8 = (
    b"\xff",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"ab\xe2\x82",
    b"\x80",
    b"\xf8\x88\x80\x80\x80",
)

LENGTHS = (0, 1, 125, 126, 127, 2**16 - 1, 2**16, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1)

CODES = (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 3000, 3999, 4000, 4999, 5000, 65535, *sorted(REGISTERED))

Maker = Callable[[random.Random, Message], bytes]


def good_message(chance: random.Random, good: Message) -> bytes:
    return masked(FIN | good.opcode, good.payload, chance.randbytes(4))


def fragments(chance: random.Random, good: Message) -> bytes:
    """Return the good message in fragments, some of them empty, with pings between."""
    cuts = sorted(chance.randrange(len(good.payload) + 1) for _ in range(chance.randrange(1, 5)))
    parts = [good.payload[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(good.payload)], strict=True)]
    sent = b""
    for number, part in enumerate(parts):
        first = (FIN if number == len(parts) - 1 else 0) | (CONTINUATION if number else good.opcode)
        sent += masked(first, part, chance.randbytes(4))
        if chance.random() < 0.3 and number < len(parts) - 1:
            sent += ping(chance, good)
    return sent


def ping(chance: random.Random, _: Message) -> bytes:
    return masked(FIN | chance.choice([PING, PING, PONG]), chance.randbytes(chance.choice([0, 1, 4, 125])))


def refused_message(chance: random.Random, _: Message) -> bytes:
    text = chance.choice([b"", b"{", b"[]", b"null", b"{}", '{"inputs": "\u00e4"}'.encode(), b"[" * 300, bytes(200)])
    return masked(FIN | chance.choice([TEXT, BINARY]), text, chance.randbytes(4))


def broken_text(chance: random.Random, _: Message) -> bytes:
    text = b"ok" * chance.randrange(3) + chance.choice(BROKEN_UTF8) + b"ok" * chance.randrange(3)
    if chance.random() < 0.5:
        return masked(FIN | TEXT, text)
    cut = chance.randrange(len(text) + 1)
    return masked(TEXT, text[:cut]) + masked(FIN | CONTINUATION, text[cut:])


def reserved_bit(chance: random.Random, good: Message) -> bytes:
    bits = chance.randrange(1, 8) << 4
    return masked(FIN | bits | chance.choice([good.opcode, PING, CLOSE, CONTINUATION]), good.payload[:100])


def unknown_opcode(chance: random.Random, good: Message) -> bytes:
    return masked(chance.choice([FIN, 0]) | chance.choice([3, 4, 5, 6, 7, 11, 12, 13, 14, 15]), good.payload[:100])


def no_mask(chance: random.Random, good: Message) -> bytes:
    return masked(FIN | chance.choice([good.opcode, PING, CLOSE]), good.payload[:100], bare=True)


def large_control(chance: random.Random, _: Message) -> bytes:
    return masked(FIN | chance.choice([PING, PONG, CLOSE]), bytes(chance.choice([126, 200, 70000])))


def cut_control(chance: random.Random, _: Message) -> bytes:
    return masked(chance.choice([PING, PONG, CLOSE]), bytes(4))


def lost_continuation(chance: random.Random, good: Message) -> bytes:
    return masked(chance.choice([FIN, 0]) | CONTINUATION, good.payload[:10])


def message_in_message(chance: random.Random, good: Message) -> bytes:
    return masked(good.opcode, good.payload[:10]) + masked(chance.choice([FIN, 0]) | good.opcode, good.payload)


def any_length(chance: random.Random, good: Message) -> bytes:
    """Return a frame whose length field says anything, in any of the three forms."""
    length = chance.choice(LENGTHS)
    form = chance.choice(
        [length_field(length % 2**64), b"\x7f" + length.to_bytes(8), b"\x7e" + (length % 2**16).to_bytes(2)]
    )
    return masked(FIN | chance.choice([good.opcode, CLOSE, PING]), good.payload[:100], length=form)


def close(chance: random.Random, _: Message) -> bytes:
    code = chance.choice(CODES).to_bytes(2)
    reason = chance.choice([b"", b"bye", "\u00fc".encode(), b"x" * 123, *BROKEN_UTF8])
    return masked(FIN | CLOSE, chance.choice([code + reason, code, b"", code[:1]]))


def noise(chance: random.Random, _: Message) -> bytes:
    return chance.randbytes(chance.choice([1, 2, 3, 10, 100]))


def other_protocol(chance: random.Random, _: Message) -> bytes:
    return chance.choice([b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00\x01"])


def half_a_frame(chance: random.Random, good: Message) -> bytes:
    whole = good_message(chance, good)
    return whole[: chance.randrange(1, len(whole))]


GOOD: tuple[Maker, ...] = (good_message, fragments, ping)

BAD: tuple[Maker, ...] = (
    refused_message,
    broken_text,
    reserved_bit,
    unknown_opcode,
    no_mask,
    large_control,
    cut_control,
    lost_continuation,
    message_in_message,
    any_length,
    close,
    noise,
    other_protocol,
    half_a_frame,
)


def draw(chance: random.Random, good: Message) -> bytes:
    """Return some good frames, mostly with a broken one in or after them, and more behind it."""
    makers = [chance.choice(GOOD) for _ in range(chance.randrange(6))]
    if chance.random() < 0.85:
        makers.append(chance.choice(BAD))
        makers += [chance.choice((*GOOD, *BAD)) for _ in range(chance.choice([0, 0, 1, 3, 8]))]
    return b"".join(make(chance, good) for make in makers)


def pieces(chance: random.Random, data: bytes) -> list[bytes]:
    """Return bytes cut at random, as a network may deliver them."""
    cuts = sorted(chance.randrange(len(data) + 1) for _ in range(chance.choice([0, 0, 1, 2, 5])))
    return [data[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True) if stop > start]
