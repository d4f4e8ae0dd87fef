"""Parse inputs to arrays; test_http.py checks over a real server that each refusal names its place."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.inputs import parse_sequence, parse_sequences
from app.catalogue import InputFormat
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
    array = parse_sequence(value, InputFormat(3), 10)
    assert array.dtype == np.float32
    assert array.tolist() == np.array([[float(number) for number in step] for step in value], np.float32).tolist()


@given(anything)
def test_anything_else_is_refused_with_its_place(value):
    try:
        sequences, _ = parse_sequences(value, InputFormat(2), 10, 10)
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
        parse_sequence(value, InputFormat(3), 10)
    assert refusal.value.more["place"] == f"inputs[{row}][{column}]"


OVERFLOW = 2.0**128 - 2.0**103
"""Half way between the largest float32 and the next power of two: where rounding to float32 gives infinity."""

LARGEST = math.nextafter(OVERFLOW, 0)
near = st.sampled_from([OVERFLOW, LARGEST, 3.4028235e38, 3.4028234e38, 3.4028236e38, 2.0**128, 2**128 - 2**104, 2**127])


@given(st.floats() | near | near.map(lambda number: -number) | st.integers(2**128 - 2**104, 2**128))
def test_numbers_are_taken_where_float32_rounds_them_to_finite_ones(number):
    with np.errstate(over="ignore"):
        rounded = np.float64(number).astype(np.float32)
    try:
        assert parse_sequence([[number]], InputFormat(1), 10) == [[rounded]]
    except InvalidInput:
        assert not np.isfinite(rounded)
    else:
        assert np.isfinite(rounded)


TOKENS = InputFormat(1, vocabulary_size=7)
tokens = st.lists(st.integers(0, 6) | st.sampled_from([0.0, 6.0, True]), min_size=1, max_size=6)


@given(tokens)
def test_tokens_may_stand_without_their_lists(value):
    nested = [[token] for token in value]
    for form in (value, nested, np.array(value, "f4"), np.array(nested, "f4")):
        array = parse_sequence(form, TOKENS, 10)
        assert (array.dtype, array.tolist()) == (np.float32, [[float(token)] for token in value])


@given(
    tokens,
    st.integers(0, 5),
    st.sampled_from([7, -1, 0.5, 6.0000000001, 1e300, math.nan, math.inf, "1", None, 10**60, -0.1]),
)
def test_what_is_no_token_is_found(value, t, bad):
    t %= len(value)
    value[t] = bad
    for form, place in ((value, f"inputs[{t}]"), ([[token] for token in value], f"inputs[{t}][0]")):
        with pytest.raises(InvalidInput) as refusal:
            parse_sequence(form, TOKENS, 10)
        assert refusal.value.more["place"] == place
        assert refusal.value.more["expected"] == "a token, a whole number from 0 to 6"


@given(anything)
def test_anything_but_tokens_is_refused_with_its_place(value):
    try:
        sequences, _ = parse_sequences(value, TOKENS, 10, 10)
    except InvalidInput as error:
        assert error.more["place"].startswith("inputs")
        json.dumps(error.problem())
    else:
        assert all(set(array.flat) <= set(range(7)) for array in sequences)


@pytest.mark.parametrize(
    ("value", "place", "expected"),
    [
        ([[1], 2], "inputs[1]", "a list of one token"),
        ([[1], [2, 3]], "inputs[1]", "one token"),
        ([[1], []], "inputs[1]", "one token"),
        ([[1], [[2]]], "inputs[1][0]", "a token, a whole number from 0 to 6"),
        (np.array([[1, 2]], "f4"), "inputs[0]", "one token"),
        (np.array([1, 7], "f4"), "inputs[1]", "a token, a whole number from 0 to 6"),
    ],
)
def test_tokens_in_lists_of_another_shape_are_refused(value, place, expected):
    with pytest.raises(InvalidInput) as refusal:
        parse_sequence(value, TOKENS, 10)
    assert (refusal.value.more["place"], refusal.value.more["expected"]) == (place, expected)


@given(st.lists(steps, min_size=1, max_size=4))
def test_batch_keeps_the_lengths_of_its_sequences(value):
    sequences, batched = parse_sequences(value, InputFormat(3), 10, 10)
    assert batched
    assert [len(array) for array in sequences] == [len(sequence) for sequence in value]


@pytest.mark.parametrize("array", [np.zeros(3, "f4"), np.zeros((1, 1, 3), "f4"), np.zeros((2, 4), "f4")])
def test_array_of_another_shape_is_refused(array):
    with pytest.raises(InvalidInput):
        parse_sequence(array, InputFormat(3), 10)
