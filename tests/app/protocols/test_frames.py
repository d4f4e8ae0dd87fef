"""WebSocket frames without I/O, compared with those of the websockets package."""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Close

from app.protocols import frames
from app.protocols.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, FrameError, FrameReader
from tests.app.framing import masked

LIMIT = 200_000

payloads = st.one_of(st.binary(max_size=300), st.sampled_from([125, 126, 4097, 65535, 65536]).map(bytes))
controls = st.tuples(st.sampled_from([PING, PONG, CLOSE]), st.binary(max_size=125))
messages = st.one_of(
    st.tuples(st.just(BINARY), payloads), st.tuples(st.just(TEXT), st.text(max_size=99).map(str.encode)), controls
)


def fragmented(message: tuple[int, bytes], cuts: list[int]) -> list[bytes]:
    """Return the frames of a message, split at these places unless it is a control frame."""
    opcode, payload = message
    if opcode >= CLOSE:
        return [masked(opcode, payload)]
    places = [0, *sorted(cut % (len(payload) + 1) for cut in cuts), len(payload)]
    pieces = [payload[a:b] for a, b in itertools.pairwise(places)]
    last = len(pieces) - 1
    return [masked(opcode if i == 0 else 0, piece, i == last) for i, piece in enumerate(pieces)]


def read_all(reader: FrameReader) -> list[tuple[int, bytes]]:
    return [message for message in iter(reader.read, None) if message[0] != CONTINUATION]


@given(sent=st.lists(st.tuples(messages, st.lists(st.integers(0, 10**6), max_size=3)), max_size=6), seed=st.integers())
def test_messages_in_any_fragments_and_segments_are_read_as_sent(sent, seed):
    data = b"".join(frame for message, cuts in sent for frame in fragmented(message, cuts))
    reader, rng, read, at = FrameReader(LIMIT), random.Random(seed), [], 0
    while at < len(data):
        size = rng.choice([1, 2, 3, 7, 100, 70_000])
        reader.feed(data[at : at + size])
        read += read_all(reader) if rng.random() < 0.7 else []
        at += size
    assert read + read_all(reader) == [message for message, _ in sent]
    assert reader.unread == 0


@given(message=payloads, between=st.lists(controls, max_size=3))
def test_control_frames_between_fragments_come_first(message, between):
    reader = FrameReader(LIMIT)
    reader.feed(masked(BINARY, message, fin=False) + b"".join(masked(*c) for c in between) + masked(0, message))
    assert read_all(reader) == [*between, (BINARY, message * 2)]


def test_messages_stay_unread_if_only_control_frames_are_wanted():
    reader = FrameReader(LIMIT)
    reader.feed(masked(PING, b"1") + masked(TEXT, b"hello") + masked(PING, b"2"))
    assert reader.read(control_only=True) == (PING, b"1")
    assert reader.read(control_only=True) is None
    assert read_all(reader) == [(TEXT, b"hello"), (PING, b"2")]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\x05hello", 1002),
        (b"\xc1\x80\0\0\0\0", 1002),
        (b"\xa2\x80\0\0\0\0", 1002),
        (b"\x91\x80\0\0\0\0", 1002),
        *((bytes([0x80 | opcode, 0x80]), 1002) for opcode in (3, 7, 11, 15)),
        (b"\x09\x80", 1002),
        (b"\x89\xfe", 1002),
        (b"\x80\x80", 1002),
        (masked(TEXT, b"a", fin=False) + b"\x81\x80", 1002),
        (masked(TEXT, b"\xff"), 1007),
        (masked(TEXT, b"\xc3", fin=False) + masked(0, b"x"), 1007),
        (b"\x82\xff" + (LIMIT + 1).to_bytes(8, "big"), 1009),
        (b"\x82\xff" + b"\xff" * 8, 1009),
        (masked(BINARY, b"x" * LIMIT, fin=False) + b"\x80\x81", 1009),
    ],
)
def test_bytes_that_break_the_protocol_are_refused_at_once(data, code):
    reader = FrameReader(LIMIT)
    reader.feed(masked(BINARY, b"good") + data)
    assert reader.read() == (BINARY, b"good")
    with pytest.raises(FrameError) as error:
        read_all(reader)
    assert error.value.code == code


def read_or_code(data: bytes, sizes: list[int]) -> list[tuple[int, bytes] | int]:
    """Feed bytes in segments of these sizes; return the messages, and the code of the error that ends them."""
    reader, read, at = FrameReader(LIMIT), [], 0
    try:
        for size in [*sizes, len(data)]:
            reader.feed(data[at : at + size])
            at += size
            read += iter(reader.read, None)
    except FrameError as error:
        read.append(error.code)
    return read


@given(
    data=st.one_of(st.binary(), st.lists(messages).map(lambda sent: b"".join(masked(*each) for each in sent))),
    broken=st.tuples(st.integers(0, 10**6), st.binary(max_size=2)),
    sizes=st.lists(st.integers(1, 9)),
)
def test_any_bytes_read_the_same_in_any_segments(data, broken, sizes):
    at = broken[0] % (len(data) + 1)
    data = data[:at] + broken[1] + data[at + 1 :]
    assert read_or_code(data, sizes) == read_or_code(data, [])


def test_message_as_long_as_the_limit_is_read():
    reader, payload = FrameReader(LIMIT), b"x" * LIMIT
    reader.feed(masked(BINARY, payload) + masked(BINARY, payload[1:], fin=False) + masked(0, b"x"))
    assert read_all(reader) == [(BINARY, payload)] * 2


def test_empty_fragments_without_end_take_no_memory():
    reader, frame = FrameReader(LIMIT), masked(0, b"", fin=False)
    reader.feed(masked(TEXT, b"", fin=False))
    for _ in range(100):
        reader.feed(frame * 1000)
        assert read_all(reader) == []
    assert reader.unread == 0
    assert len(reader._fragments) == 0


@pytest.mark.parametrize("length", [0, 1, 125, 126, 65535, 65536, 2**33])
def test_head_of_a_frame_encodes_its_length(length):
    head = frames.head(TEXT, length)
    extended = int.from_bytes(head[2:], "big") if head[1] > 125 else head[1]
    assert (head[0], extended) == (0x81, length)
    assert len(head) == (2 if length < 126 else 4 if length < 65536 else 10)


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535])
def test_invalid_close_code_is_refused(code):
    with pytest.raises(FrameError) as error:
        frames.read_close(code.to_bytes(2, "big"))
    assert error.value.code == 1002
    with pytest.raises(ValueError, match=f"close code {code}"):
        frames.close_payload(code, "")


def test_close_frame_has_code_and_reason():
    assert frames.read_close(frames.close_payload(4003, "gué")) == (4003, "gué")
    assert frames.read_close(b"") == (1005, "")
    for payload, code in ((b"\x03", 1002), (b"\x03\xe8\xff", 1007)):
        with pytest.raises(FrameError) as error:
            frames.read_close(payload)
        assert error.value.code == code


def test_long_reason_is_truncated_between_characters():
    payload = frames.close_payload(1000, "é" * 100)
    assert Close.parse(payload) == Close(1000, "é" * 61)
