"""Inputs in the dtype that the client sent."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from app.sessions.dtypes import (
    LARGEST_SCALE,
    SMALLEST_SCALE,
    CompactArray,
    Form,
    form_of,
    pack,
    packed_bytes,
    unpack,
    widened,
)

EVERY_INT16 = np.arange(-(2**15), 2**15, dtype="<i2")
HALVES = arrays.arrays("<f2", st.tuples(st.integers(1, 4), st.integers(1, 5)))


def check_kept(inputs: CompactArray, bytes_per_step: int) -> None:
    """Check that inputs, [T, width], are decoded bit for bit, also a part of the steps."""
    form, (steps, width) = form_of(inputs), inputs.shape
    data = pack(np.asarray(inputs), form)
    assert len(data) == packed_bytes(inputs, form) == steps * bytes_per_step
    for first in range(0, steps, 1 + steps // 3):
        again = unpack(data[first * bytes_per_step :], steps - first, width)
        assert again.dtype == np.float32
        assert again.tobytes() == inputs[first:].tobytes()


@given(HALVES)
def test_float16_inputs_take_half_and_are_exact(numbers):
    check_kept(widened(numbers, Form("float16")), 2 * numbers.shape[1])


@given(st.floats(SMALLEST_SCALE, LARGEST_SCALE / 2**15, width=32) | st.sampled_from([1.0, 2.0**-15, 0.1]))
def test_every_int16_is_exact_at_any_scale(scale):
    check_kept(widened(EVERY_INT16.reshape(-1, 512), Form("int16", scale)), 2 * 512 + 5)


@pytest.mark.parametrize("width", [1, 2])
def test_int16_inputs_that_would_be_longer_are_float32(width):
    check_kept(widened(EVERY_INT16[: 6 * width].reshape(-1, width), Form("int16", 0.1)), 4 * width)


def test_float32_inputs_are_stored_as_plain_bytes():
    inputs = np.random.default_rng(0).random((3, 7), np.float32)
    assert pack(inputs, None) == inputs.tobytes()
    assert unpack(inputs.tobytes(), 3, 7).tolist() == inputs.tolist()


@pytest.mark.parametrize(
    "step",
    [
        b"\x48" + np.float32(1).tobytes() + bytes(6),
        *(b"\x49" + np.float32(scale).tobytes() + bytes(6) for scale in (0, -1, np.nan, np.inf, 1e-40)),
    ],
)
def test_invalid_tag_is_refused(step):
    whole = pack(np.ones((1, 3), np.float32), Form("int16"))
    assert len(whole) == len(step)
    with pytest.raises(ValueError, match="tag"):
        unpack(whole + step, 2, 3)


@given(st.binary(max_size=60), st.integers(1, 4), st.integers(1, 5))
def test_any_bytes_are_decoded_or_refused(data, steps, width):
    try:
        inputs = unpack(data, steps, width)
    except ValueError:
        return
    assert (inputs.shape, inputs.dtype) == ((steps, width), np.float32)


def test_part_of_an_array_has_no_form():
    array = widened(np.zeros((2, 3), np.float16), Form("float16"))
    assert (form_of(array), form_of(array[0]), form_of(np.asarray(array)), form_of([array])) == (
        ("float16", 1.0),
        None,
        None,
        None,
    )
