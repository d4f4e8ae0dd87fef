import contextlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from app.api.codec import decode_json, decode_msgpack, encode_json, encode_msgpack
from app.errors import MalformedBody

float32 = arrays.arrays(np.float32, arrays.array_shapes(max_dims=3, max_side=4), elements={"allow_nan": False})


@given(float32.filter(lambda array: bool(np.isfinite(array).all())))
def test_json_keeps_every_float32(array):
    assert np.array_equal(np.array(decode_json(encode_json({"a": array}))["a"], np.float32), array)


@given(float32)
def test_msgpack_keeps_every_float32(array):
    assert np.array_equal(decode_msgpack(encode_msgpack({"a": [array]}))["a"][0], array)


def test_arrays_whose_rows_lie_apart_are_written_as_they_read():
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    assert decode_json(encode_json({"a": array}))["a"] == array.tolist()
    assert decode_msgpack(encode_msgpack({"a": array}))["a"].tolist() == array.tolist()


def test_numbers_that_are_no_json_are_decoded_to_be_refused_in_place():
    assert math.isnan(decode_json(b'{"a": NaN}')["a"])
    assert decode_json('{"a": 1e999, "b": -Infinity}') == {"a": math.inf, "b": -math.inf}


@pytest.mark.parametrize("decode", [decode_json, decode_msgpack])
@given(data=st.binary(max_size=40))
def test_any_bytes_are_an_object_or_refused(decode, data):
    with contextlib.suppress(MalformedBody):
        assert isinstance(decode(data), dict)
