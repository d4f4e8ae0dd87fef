import asyncio
import contextlib
import math

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from app.api.codec import (
    PIECE_BYTES,
    array_bytes,
    decode_json,
    decode_msgpack,
    encode_json,
    encode_msgpack,
    in_dtype,
    in_turns,
    json_pieces,
    msgpack_pieces,
    slices,
)
from app.errors import MalformedBody
from tests.app.asynchronous import run

float32 = arrays.arrays(np.float32, arrays.array_shapes(max_dims=3, max_side=4), elements={"allow_nan": False})


@given(float32.filter(lambda array: bool(np.isfinite(array).all())))
def test_json_keeps_every_float32(array):
    assert np.array_equal(np.array(decode_json(encode_json({"a": array}))["a"], np.float32), array)


@given(float32)
def test_msgpack_keeps_every_float32(array):
    assert np.array_equal(decode_msgpack(encode_msgpack({"a": [array]}))["a"][0], array)


def as_sent(**array):
    return msgpack.packb({"a": array})


@pytest.mark.parametrize(
    ("array", "place", "reason"),
    [
        ({"dtype": "float64"}, "dtype", "expected float32, float16 or int16, got 'float64'"),
        ({"dtype": ["int16"]}, "dtype", "expected float32, float16 or int16"),
        ({"dtype": "int16", "scale": 0}, "scale", r"expected a number from 1.175e-38 to 3.403e\+38, got 0"),
        ({"dtype": "int16", "scale": -1.0}, "scale", "got -1.0"),
        ({"dtype": "int16", "scale": math.nan}, "scale", "got nan"),
        ({"dtype": "int16", "scale": math.inf}, "scale", "got inf"),
        ({"dtype": "int16", "scale": True}, "scale", "got True"),
        ({"dtype": "int16", "scale": "1"}, "scale", "got '1'"),
        ({"dtype": "float16", "scale": 2.0}, "scale", "which only int16 may have, beside float16, got 2.0"),
        ({"scale": 2.0}, "scale", "which only int16 may have, beside float32, got 2.0"),
        ({"dtype": "int16", "shape": [2]}, None, "an array of int16 and of shape .2. has 6 bytes"),
        ({"dtype": "float32"}, None, "an array of float32 and of shape .3. has 6 bytes"),
    ],
)
def test_array_whose_dtype_or_scale_is_none_is_refused(array, place, reason):
    with pytest.raises(MalformedBody, match=reason) as refused:
        decode_msgpack(as_sent(**{"shape": [3], "data": bytes(6)} | array))
    assert refused.value.more.get("place") == place


def test_map_with_keys_beside_those_of_arrays_stays_a_map():
    sent = {"shape": [3], "data": bytes(6), "dtype": "int16", "type": "?"}
    assert decode_msgpack(as_sent(**sent)) == {"a": sent}


def test_float16_answer_keeps_arrays_beyond_float16_as_float32():
    values = np.float32([[1.5, -65504], [1e-3, 0]])
    document = {"a": values, "b": [values[0], None, "text"], "c": {"d": np.float32([65504.1])}, "e": np.empty(0)}
    reply = msgpack.unpackb(encode_msgpack(in_dtype(document, "float16")))
    assert reply["a"] == {"shape": [2, 2], "dtype": "float16", "data": values.astype("<f2").tobytes()}
    assert (reply["b"][0]["dtype"], reply["b"][1:], reply["e"]["data"]) == ("float16", [None, "text"], b"")
    assert reply["c"]["d"] == {"shape": [1], "data": np.float32([65504.1]).tobytes()}
    assert in_dtype(document, "float32") is document


def test_arrays_whose_rows_lie_apart_are_written_as_they_read():
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    assert decode_json(encode_json({"a": array}))["a"] == array.tolist()
    assert decode_msgpack(encode_msgpack({"a": array}))["a"].tolist() == array.tolist()


def test_nan_and_infinity_are_decoded_to_be_refused_in_place():
    assert math.isnan(decode_json(b'{"a": NaN}')["a"])
    assert decode_json('{"a": 1e999, "b": -Infinity}') == {"a": math.inf, "b": -math.inf}


@pytest.mark.parametrize("decode", [decode_json, decode_msgpack])
@given(data=st.binary(max_size=40))
def test_any_bytes_are_an_object_or_refused(decode, data):
    with contextlib.suppress(MalformedBody):
        assert isinstance(decode(data), dict)


LARGE = [(100_000,), (3, 100_000), (50_000, 2), (2, 3, 40_000), (0, 7), ()]


@pytest.mark.parametrize("shape", LARGE)
def test_pieces_of_json_are_the_document_and_none_is_large(shape):
    array = np.random.default_rng(0).random(shape, np.float32)
    document = {"a": array, "b": [array, array.T], "c": {"d": array, "é": None}, "e": "text"}
    pieces = list(json_pieces(document))
    assert b"".join(pieces) == encode_json(document)
    assert max(map(len, pieces)) < 6 * PIECE_BYTES
    assert array_bytes(document) == 4 * array.nbytes


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("shape", LARGE)
def test_pieces_of_msgpack_are_the_document_and_none_is_large(shape, dtype):
    array = np.random.default_rng(0).random(shape, np.float32).astype(dtype)
    document = {"a": array, "b": [array, array.T], "c": {"d": array, "é": None}, "e": "text"}
    pieces = list(msgpack_pieces(document))
    assert b"".join(pieces) == encode_msgpack(document)
    assert max(map(len, pieces)) <= 2 * PIECE_BYTES


def test_other_tasks_run_between_the_pieces():
    async def test() -> None:
        ran = []
        asyncio.get_running_loop().call_soon(ran.append, 1)
        async for piece in in_turns(slices(bytes(PIECE_BYTES + 1))):
            ran.append(len(piece))
        assert ran == [PIECE_BYTES, 1, 1]

    run(test())


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x81\xa1a\xd4\x05\x00", "extension type 5 is not supported"),
        (msgpack.packb({"a": {"shape": [2**62] * 100_000, "data": b""}}), "at most 8 sizes"),
        (msgpack.packb({"a": {"shape": [1] * 9, "data": bytes(4)}}), "at most 8 sizes"),
    ],
)
def test_what_would_take_long_to_decode_is_refused(data, reason):
    with pytest.raises(MalformedBody, match=reason):
        decode_msgpack(data)


@pytest.mark.parametrize(
    ("decode", "item", "reason"),
    [
        (decode_json, b"[],", r"\d+ lists, which no request"),
        (decode_json, b"{},", r"\d+ objects, which no request"),
        (decode_msgpack, b"\x90", r"\d+ lists, which no request"),
        (decode_msgpack, b"\x80", "65537 maps, which no request"),
    ],
)
def test_lists_that_are_larger_than_their_bytes_are_counted(decode, item, reason):
    count = 1_000_000 // len(item)
    head = b"\x81\xa6inputs\xdd" + count.to_bytes(4, "big") if decode is decode_msgpack else b'{"inputs":[['
    with pytest.raises(MalformedBody, match=reason):
        decode(head + item * count + (b"" if decode is decode_msgpack else b"0]]}"))


@pytest.mark.parametrize(("decode", "encode"), [(decode_json, encode_json), (decode_msgpack, msgpack.packb)])
def test_steps_of_one_number_that_fill_a_body_are_decoded(decode, encode):
    steps = [[0]] * 200_000
    assert decode(encode({"inputs": steps}))["inputs"] == steps
