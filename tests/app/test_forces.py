"""The checks of forced gates, and their text."""

import math

import pytest

from app.errors import InvalidRequest
from app.forces import force_document, force_text

TRACES = {"write_gate": [2], "allocation_gate": [2], "free_gates": [3], "read_modes": [3, 5], "usage": [8]}
OF_AN_NTM = {"interpolation_gate": [2], "shift_weights": [2, 3]}
MODES = [0.5, 0, 0, 0.5, 0]


def text(asked: object, kind: str = "dnc", backend: str = "fused", traces: object = TRACES) -> str | None:
    return force_text(asked, "mine", kind, backend, traces)  # type: ignore[arg-type]


def test_text_of_equal_forces_is_one():
    one = text({"write_gate": [0, None], "read_modes": [None, MODES, None]})
    other = text({"read_modes": [None, [0.5, 0.0, -0.0, 0.5, 0], None], "write_gate": [-0.0, None]}, backend="torch")
    assert one == other == '{"read_modes":[null,[0.5,0.0,0.0,0.5,0.0],null],"write_gate":[0.0,null]}'
    assert force_document(one) == {"read_modes": [None, MODES, None], "write_gate": [0, None]}
    assert text(force_document(one)) == one


@pytest.mark.parametrize("asked", [None, {}, {"write_gate": [None, None]}, {"read_modes": [None] * 3}])
def test_text_of_free_gates_is_none(asked):
    assert (text(asked), force_document(None)) == (None, None)


def test_gates_of_an_ntm_are_forced():
    asked = {"shift_weights": [None, [1 / 3, 1 / 3, 1 / 3]], "interpolation_gate": [1, None]}
    assert force_document(text(asked, "ntm", traces=OF_AN_NTM)) == asked


REFUSED = {
    "an unknown gate": ({"usage": [0]}, "force", "one of write_gate, allocation_gate, free_gates, read_modes"),
    "a gate of another kind": ({"interpolation_gate": [0, 1]}, "force", "one of write_gate"),
    "no list": ({"write_gate": 0}, "force.write_gate", "a list of 2"),
    "too few heads": ({"write_gate": [0]}, "force.write_gate", "a list of 2"),
    "too many heads": ({"free_gates": [0] * 4}, "force.free_gates", "a list of 3"),
    "above 1": ({"write_gate": [None, 1.5]}, "force.write_gate[1]", "a number from 0 to 1, or null"),
    "below 0": ({"write_gate": [-1e-9, 0]}, "force.write_gate[0]", "a number from 0 to 1, or null"),
    "NaN": ({"write_gate": [math.nan, 0]}, "force.write_gate[0]", "a number from 0 to 1, or null"),
    "a truth": ({"write_gate": [True, 0]}, "force.write_gate[0]", "a number from 0 to 1, or null"),
    "a list for a number": ({"write_gate": [[0], 0]}, "force.write_gate[0]", "a number from 0 to 1, or null"),
    "a number for a list": ({"read_modes": [1, None, None]}, "force.read_modes[0]", "a list of 5 numbers"),
    "too few modes": ({"read_modes": [None, [1], None]}, "force.read_modes[1]", "a list of 5 numbers"),
    "a mode that is free": ({"read_modes": [[None, 0, 0, 0, 1]] * 3}, "force.read_modes[0][0]", "a number from 0"),
    "modes of another sum": ({"read_modes": [None, None, [0.9, 0, 0, 0, 0]]}, "force.read_modes[2]", "that sum to 1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_force_that_does_not_fit_is_refused_with_its_place(case):
    asked, place, expected = REFUSED[case]
    with pytest.raises(InvalidRequest) as refused:
        text(asked)
    problem = refused.value.problem()
    assert (problem["place"], problem["got"] != "") == (place, True)
    assert expected in problem["expected"]


@pytest.mark.parametrize(
    ("kind", "backend", "words"),
    [("rnn", "fused", "no gates"), ("onnx", "onnx", "no gates"), ("dnc", "onnx", "--backend fused or torch")],
)
def test_model_that_cannot_force_is_refused_with_the_remedy(kind, backend, words):
    with pytest.raises(InvalidRequest, match=f"force: mine .*{words}"):
        text({"write_gate": [0, 0]}, kind, backend)
    assert text({}, kind, backend) is None
