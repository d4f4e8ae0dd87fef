"""From what clients send to arrays; that each refusal names its place is in test_http.py, over a real server."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.inputs import parse_sequence, parse_sequences
from app.errors import InvalidInput

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
numbers = finite | st.integers(-(2**70), 2**70) | st.booleans()
steps = st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=1, max_size=6)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=20,
)


@given(steps)
def test_sequence_of_numbers_is_taken_as_float32(value):
    array = parse_sequence(value, 3, 10)
    assert array.dtype == np.float32
    assert array.tolist() == np.array([[float(number) for number in step] for step in value], np.float32).tolist()


@given(anything)
def test_anything_else_is_refused_with_its_place(value):
    try:
        sequences, _ = parse_sequences(value, 2, 10, 10)
    except InvalidInput as error:
        assert error.more["place"].startswith("inputs")
        assert error.more["expected"]
        json.dumps(error.problem())
    else:
        assert all(array.shape[1] == 2 and np.isfinite(array).all() for array in sequences)


@given(steps, st.integers(0, 5), st.integers(0, 2), st.sampled_from([math.nan, math.inf, 1e39, "1", None, [1], 10**60]))
def test_one_bad_number_is_found(value, row, column, bad):
    row %= len(value)
    value[row][column] = bad
    with pytest.raises(InvalidInput) as refusal:
        parse_sequence(value, 3, 10)
    assert refusal.value.more["place"] == f"inputs[{row}][{column}]"


@given(st.lists(steps, min_size=1, max_size=4))
def test_batch_keeps_the_lengths_of_its_sequences(value):
    sequences, batched = parse_sequences(value, 3, 10, 10)
    assert batched
    assert [len(array) for array in sequences] == [len(sequence) for sequence in value]


@pytest.mark.parametrize("array", [np.zeros(3, "f4"), np.zeros((1, 1, 3), "f4"), np.zeros((2, 4), "f4")])
def test_array_of_another_shape_is_refused(array):
    with pytest.raises(InvalidInput):
        parse_sequence(array, 3, 10)
