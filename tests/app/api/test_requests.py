"""Decode and check requests of every form, and read no more of a wrong one than necessary."""

import json
import math
from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pydantic import ValidationError

from app.api.codec import encode_msgpack
from app.api.inputs import brief, parse_sequence, parse_sequences
from app.api.requests import read_document, read_frame, read_infer, read_steps
from app.api.schemas import (
    FrameRequest,
    InferRequest,
    ManyFrame,
    ManyRequest,
    ManyStepsRequest,
    OpenRequest,
    StepsRequest,
    StrictDocument,
)
from app.catalogue import InputFormat
from app.errors import EngramError, InvalidInput, InvalidRequest
from app.sessions.dtypes import Form
from tests.calls import python_calls

PAIRS, TOKENS = InputFormat(2), InputFormat(1, vocabulary_size=7)
REQUESTS = sorted(
    {*StrictDocument.__subclasses__(), *ManyRequest.__subclasses__()} - {ManyRequest}, key=lambda r: r.__name__
)


def test_infer_request_is_read_with_its_inputs_apart():
    body = json.dumps({"model": "m", "inputs": [[[1, 2]], [[3, 4], [5, 6]]], "trace": ["usage"]}).encode()
    wanted, sequences = read_infer(body, {"m": PAIRS}, 10, 10)
    assert wanted == ("m", ["usage"], None, None)
    assert ([inputs.tolist() for inputs in sequences.inputs], sequences.batched) == ([[[1, 2]], [[3, 4], [5, 6]]], True)
    assert read_infer(body, {"other": PAIRS}, 10, 10)[1] == ([], False)


def test_steps_and_frames_are_read_alike():
    document = {"inputs": [[1.5, 2], [3, 4]], "trace": ["usage"]}
    json_body, array = json.dumps(document).encode(), {"shape": [2, 2], "data": np.float32([1.5, 2, 3, 4]).tobytes()}
    packed = msgpack.packb(document | {"inputs": array})
    came = [
        read_steps(json_body, PAIRS, 10),
        read_frame(json_body, "engram.json", PAIRS, 10),
        read_frame(packed, "engram.msgpack", PAIRS, 10),
    ]
    assert [(*wanted[:2], inputs.tolist()) for wanted, inputs in came] == [(["usage"], None, document["inputs"])] * 3


HALVES = np.array([[0, 5.5], [1, 2]], "<f2")
HALF_ROWS = [{"shape": [2], "dtype": "float16", "data": row.tobytes()} for row in HALVES]


def raw(numbers: Any, dtype: str, **more: Any) -> dict[str, Any]:
    """Return an array as it is sent."""
    return {"shape": numbers.shape, "dtype": dtype, "data": numbers.tobytes(), **more}


@pytest.mark.parametrize(
    ("sent", "inputs", "form"),
    [
        (raw(HALVES, "float16"), HALVES, Form("float16")),
        (HALF_ROWS, HALVES, None),
        (raw(np.array([[1, -2]], "<i2"), "int16"), [[1, -2]], Form("int16")),
        (raw(np.array([[1, -2]], "<i2"), "int16", scale=2**-15), [[2**-15, -(2**-14)]], Form("int16", 2**-15)),
        (raw(np.array([[1, -2]], "<i2"), "int16", scale=3), [[3, -6]], Form("int16", 3.0)),
        (raw(np.array([[1, -2]], "<f4"), "float32"), [[1, -2]], None),
    ],
)
def test_array_of_another_dtype_becomes_float32_and_keeps_its_form(sent, inputs, form):
    wanted, read = read_frame(msgpack.packb({"inputs": sent}), "engram.msgpack", PAIRS, 10)
    assert (type(read), read.dtype, wanted.form) == (np.ndarray, np.float32, form)
    assert read.tolist() == np.float32(inputs).tolist()


@pytest.mark.parametrize("shape", [[3], [3, 1]])
def test_tokens_may_come_as_int16(shape):
    sent = raw(np.array([6, 0, 3], "<i2").reshape(shape), "int16")
    wanted, inputs = read_frame(msgpack.packb({"inputs": sent}), "engram.msgpack", TOKENS, 10)
    assert (inputs.tolist(), wanted.form) == ([[6], [0], [3]], Form("int16"))
    sent["scale"] = 0.4
    with pytest.raises(InvalidInput, match=r"inputs\[0\].*a token, a whole number from 0 to 6, got 2.4"):
        read_frame(msgpack.packb({"inputs": sent}), "engram.msgpack", TOKENS, 10)


@pytest.mark.parametrize(
    ("sent", "got"),
    [
        (raw(np.array([[0, 1], [2, np.nan]], "<f2"), "float16"), "nan"),
        (raw(np.array([[0, 1], [2, -np.inf]], "<f2"), "float16"), "-inf"),
        (raw(np.array([[0, 1], [1, 30_000]], "<i2"), "int16", scale=1e35), "inf"),
    ],
)
def test_number_that_is_not_finite_is_refused_in_any_dtype(sent, got):
    with pytest.raises(InvalidInput) as refused:
        read_frame(msgpack.packb({"inputs": sent}), "engram.msgpack", PAIRS, 10)
    assert (refused.value.more["place"], refused.value.more["got"]) == ("inputs[1][1]", got)


def test_answer_dtype_is_refused_in_json_or_if_unknown():
    document = {"inputs": [[1, 2]], "dtype": "float16"}
    assert read_frame(msgpack.packb(document), "engram.msgpack", PAIRS, 10)[0].dtype == "float16"
    with pytest.raises(InvalidRequest, match="float16 arrays are in msgpack only") as refused:
        read_frame(json.dumps(document).encode(), "engram.json", PAIRS, 10)
    assert refused.value.more["place"] == "dtype"
    with pytest.raises(InvalidRequest, match="dtype: Input should be 'float32' or 'float16', got 'int16'"):
        read_frame(msgpack.packb(document | {"dtype": "int16"}), "engram.msgpack", PAIRS, 10)


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 9) | st.sampled_from(["", "1", "usage", "x" * 256]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["shape", "a"]), inner, max_size=2),
    max_leaves=8,
)
NUMBERS = [0, 1, 0.5, -0.0, True, math.nan, -math.inf, 1e39, 3.4028235e38, 1e300, 2**53 + 1, 10**400, "1", None, [1]]
SINGLE = [0, 1, 6, 7, -1, 0.5, 2.0, True, None, "1", [0], [], math.nan, 10**400]
NAMES = [[], ["usage"], ["x" * 255], ["x" * 256], ["n"] * 256, ["n"] * 257, [1], None, "usage", {}]
COUNTS = [None, 0, 1, -1, 2**63 - 1, 2**63, 1.0, True, "1"]

number, token, names, count = (st.sampled_from(some) | anything for some in (NUMBERS, SINGLE, NAMES, COUNTS))
pairs = st.lists(st.lists(number, min_size=2, max_size=2) | st.lists(number, max_size=3), min_size=1, max_size=3)
tokens = st.lists(token, max_size=4) | st.lists(token.map(lambda value: [value]), max_size=4)
inputs = pairs | tokens | st.lists(pairs, max_size=3) | anything
model = st.sampled_from(["pairs", "tokens", "nobody", "x" * 256]) | anything
gate = st.lists(st.none() | number, max_size=2) | anything
force = st.dictionaries(st.sampled_from(["write_gate", "x"]), gate, max_size=2) | anything
few = {
    "inputs": inputs,
    "trace": names,
    "if_step": count,
    "seq": count,
    "memory_size": count,
    "force": force,
    "model": model,
    "a": anything,
}

DOCUMENTS = st.one_of(
    st.fixed_dictionaries({"inputs": pairs | tokens}, optional={"trace": names, "if_step": count}),
    st.fixed_dictionaries({"inputs": pairs | tokens}, optional={"trace": names, "seq": count}),
    st.fixed_dictionaries(
        {"inputs": inputs, "model": model}, optional={"trace": names, "memory_size": count, "force": force}
    ),
    st.fixed_dictionaries({}, optional=few),
)


def outcome(read: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function reads, to the bit, or how it refuses."""
    try:
        wanted, inputs = read(*arguments)
    except EngramError as error:
        return type(error), error.problem()
    arrays, more = ([inputs], ()) if isinstance(inputs, np.ndarray) else inputs
    return (
        wanted,
        [type(value) for value in wanted],
        [(a.shape, a.dtype, a.tobytes(), a.flags.writeable) for a in arrays],
        more,
    )


def check_usual_forms(*reads: tuple[Any, ...]) -> None:
    """Hold what is read in the quick way against what is read in the other."""
    usual = [outcome(*read) for read in reads]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.api.requests._is_usual", lambda *_: False)
        patch.setattr("app.api.inputs._pack", lambda *_: None)
        assert [outcome(*read) for read in reads] == usual


def check_usual_form(document: dict[str, Any], expected: InputFormat) -> None:
    body = json.dumps(document).encode()
    check_usual_forms(
        (read_steps, body, expected, 3),
        (read_frame, body, "engram.json", expected, 3),
        (read_infer, body, {"pairs": PAIRS, "tokens": TOKENS}, 3, 2),
    )


@given(DOCUMENTS, st.sampled_from([PAIRS, TOKENS]))
def test_usual_form_of_a_request_is_read_like_any_other(document, expected):
    check_usual_form(document, expected)


ONE_UNUSUAL = [
    *(({"inputs": [[0.5, value]]}, PAIRS) for value in NUMBERS),
    *(({"inputs": [pair]}, PAIRS) for pair in ([math.inf, -math.inf], [1e308, 1e308], [2**1023, 2**1023], [[], []])),
    *(({"inputs": form}, TOKENS) for value in SINGLE for form in ([value], [[value]], [1, value], [[1], value])),
    *(({"inputs": [[1, 2]], "trace": names}, PAIRS) for names in NAMES),
    *(({"inputs": [[1, 2]], key: value}, PAIRS) for value in COUNTS for key in ("if_step", "seq", "other")),
    *(({"inputs": [[1, 2]], "model": "pairs", "memory_size": value}, PAIRS) for value in COUNTS),
    *(({"inputs": [[1, 2]], "model": "pairs", "force": value}, PAIRS) for value in (*COUNTS, {}, {"a": [0]}, {"a": 0})),
    *(({"inputs": [[1, 2]] * steps}, PAIRS) for steps in (0, 3, 4)),
]


def test_request_with_one_unusual_value_is_read_like_any_other():
    for document, expected in ONE_UNUSUAL:
        check_usual_form(document, expected)


numbers = st.floats(width=32) | st.floats() | st.integers(-1, 8) | st.booleans()
array = arrays.arrays(np.float32, arrays.array_shapes(max_dims=3, max_side=2), elements=st.floats(width=32))
packed = array | st.lists(array | st.lists(array | numbers, max_size=2) | numbers | st.binary(max_size=2), max_size=3)


@given(packed, st.sampled_from([PAIRS, TOKENS, InputFormat(1)]))
@example([[np.zeros(1, "f4")]], InputFormat(1))
@example([[3.4028235677973366e38, np.zeros(1, "f4")]], PAIRS)
@example([[0.5, np.zeros(2, "f4")], [1.5, 2.5]], PAIRS)
def test_packed_frame_of_the_usual_form_is_read_alike(value, expected):
    check_usual_forms((read_frame, encode_msgpack({"inputs": value}), "engram.msgpack", expected, 3))


@pytest.mark.parametrize("request_", REQUESTS)
@pytest.mark.parametrize("value", [[1] * 1000, [""] * 1000, [[]] * 1000, {"a": 1}, "x" * 1000, None])
def test_few_errors_are_built_however_many_values_are_wrong(request_, value):
    values = dict.fromkeys(request_.model_fields, value)
    try:
        request_.model_validate(values)
    except ValidationError as error:
        assert error.error_count() <= len(values)


@pytest.mark.parametrize("request_", REQUESTS)
def test_first_unknown_of_many_keys_is_refused_unvalidated(request_, monkeypatch):
    monkeypatch.setattr(request_, "model_validate", lambda values: pytest.fail(f"{len(values)} keys are validated"))
    known = next(iter(request_.model_fields))
    body = json.dumps({known: 1} | {f"key {number}": 1 for number in range(1000)}).encode()
    with pytest.raises(InvalidRequest, match="unknown key 'key 0'") as refusal:
        read_document(body, request_)
    assert refusal.value.more["place"] == "key 0"


STEPS, WIDTH = 200, 50
WIDE, ROW = InputFormat(WIDTH), [0] * WIDTH
WRONG = {
    "the last number": ([ROW] * (STEPS - 1) + [[*ROW[1:], None]], WIDE, f"inputs[{STEPS - 1}][49]"),
    "the last number too large": ([ROW] * (STEPS - 1) + [[*ROW[1:], 1e39]], WIDE, f"inputs[{STEPS - 1}][49]"),
    "every number": ([[None] * WIDTH] * STEPS, WIDE, "inputs[0][0]"),
    "the width of the last step": ([ROW] * (STEPS - 1) + [[0]], WIDE, f"inputs[{STEPS - 1}]"),
    "a number before a step": ([[*ROW[1:], "1"], *[ROW] * STEPS, 7], WIDE, "inputs[0][49]"),
    "a step before a number": ([7, *[ROW] * STEPS, [*ROW[1:], "1"]], WIDE, "inputs[0]"),
    "an array's last number": (
        np.float32([ROW] * (STEPS - 1) + [[*ROW[1:], np.nan]]),
        WIDE,
        f"inputs[{STEPS - 1}][49]",
    ),
    "an array's shape": (np.zeros((STEPS, WIDTH + 1), "f4"), WIDE, "inputs[0]"),
    "the last token": ([0] * (STEPS - 1) + [7], TOKENS, f"inputs[{STEPS - 1}]"),
    "the last token, in lists": ([[0]] * (STEPS - 1) + [[0.5]], TOKENS, f"inputs[{STEPS - 1}][0]"),
    "too many numbers for steps": ([1] * 100 * STEPS, WIDE, "inputs"),
    "too many sequences": ([[ROW]] * 100 * STEPS, WIDE, "inputs"),
}


@pytest.mark.parametrize("case", WRONG)
def test_first_fault_is_found_with_few_calls_per_step(case):
    value, expected, place = WRONG[case]

    def parse() -> None:
        with pytest.raises(InvalidInput) as refusal:
            parse_sequences(value, expected, STEPS + 2, 10)
        assert refusal.value.more["place"] == place

    assert python_calls(parse) < 4 * STEPS


def test_text_among_numbers_takes_no_memory_beyond_its_own():
    with pytest.raises(InvalidInput, match=r"inputs\[0\]\[0\]: expected a finite number"):
        parse_sequence([["x" * 10**6]] + [[0]] * 9999, InputFormat(1), 10_000)


HUGE: dict[str, Any] = {
    "text": "x" * 10**5,
    "names": ["x" * 10**5] * 3,
    "numbers": list(range(10**5)),
    "an object": {f"{number:05}" * 10: number for number in range(10**4)},
    "objects": [[{f"{number:05}" * 10: [number] * 100 for number in range(100)}] * 10] * 10,
    "escapes": "\u0000" * 10**5,
}


@pytest.mark.parametrize("case", HUGE)
@pytest.mark.parametrize("key", ["model", "inputs", "trace", "memory_size", "x" * 10**5])
def test_refusal_of_a_huge_value_is_short(case, key):
    body = json.dumps({"model": "m", "inputs": [[0, 0]], key: HUGE[case]}).encode()
    with pytest.raises(EngramError) as refusal:
        read_infer(body, {"m": PAIRS}, 10, 10)
    assert len(json.dumps(refusal.value.problem())) < 1000


def test_brief_text_of_an_object_does_not_sort_its_keys():
    class Key(str):
        compared = 0

        def __lt__(self, other: str) -> bool:
            Key.compared += 1
            return str.__lt__(self, other)

    text = brief({Key(number): number for number in range(1000, 0, -1)})
    assert text.startswith("{'")
    assert text.endswith("...}")
    assert Key.compared < 20


def test_brief_text_has_sizes_of_bytes_and_shapes_of_arrays():
    assert brief([b"\0" * 10**6]) == "[1000000 bytes]"
    assert brief(np.zeros((3, 1), "f4")) == "an array of shape [3, 1]"


def test_names_are_bounded_in_number_and_length():
    for names, place in ((["usage"] * 257, "trace"), (["x" * 256], "trace[0]")):
        with pytest.raises(InvalidRequest) as refusal:
            read_infer(json.dumps({"model": "m", "inputs": [[0, 0]], "trace": names}).encode(), {"m": PAIRS}, 10, 10)
        assert refusal.value.more["place"] == place
    with pytest.raises(InvalidRequest, match="model: String should have at most 255 characters"):
        read_document(json.dumps({"model": "m" * 256}).encode(), OpenRequest)
    assert {InferRequest, StepsRequest, FrameRequest, ManyStepsRequest, ManyFrame} == {
        request for request in REQUESTS if "trace" in request.model_fields
    }
