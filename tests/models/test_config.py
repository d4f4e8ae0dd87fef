"""Config dataclasses from plain values."""

import math
from dataclasses import dataclass, field
from typing import Literal

import pytest

from models.config import ConfigError, from_values, require_at_least


@dataclass(frozen=True)
class Part:
    size: int = 1


@dataclass(frozen=True)
class Config:
    count: int
    rate: float = 0.5
    name: str = "plain"
    shape: Literal["round", "square"] = "round"
    strict: bool = False
    limit: int | None = None
    part: Part = field(default_factory=Part)
    sizes: dict[str, int] = field(default_factory=dict)


def test_values_of_every_type_are_taken():
    values = {
        "count": 3,
        "rate": 0.1,
        "name": "other",
        "shape": "square",
        "strict": True,
        "limit": 4,
        "part": Part(2),
        "sizes": {"a": 1},
    }
    assert from_values(Config, values, "here") == Config(3, 0.1, "other", "square", True, 4, Part(2), {"a": 1})


def test_values_not_given_are_the_defaults():
    assert from_values(Config, {"count": 3}, "here") == Config(3)


def test_value_int_for_a_float_becomes_a_float():
    rate = from_values(Config, {"count": 3, "rate": 2}, "here").rate
    assert rate == 2
    assert type(rate) is float


def test_value_none_is_taken_where_it_may_stand():
    assert from_values(Config, {"count": 3, "limit": None}, "here").limit is None


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("count", "3", "int"),
        ("count", 3.0, "int"),
        ("count", True, "int"),
        ("count", None, "int"),
        ("rate", "0.5", "float"),
        ("rate", False, "float"),
        ("name", 3, "str"),
        ("strict", 1, "bool"),
        ("limit", "4", "int or NoneType"),
        ("part", {"size": 2}, "Part"),
        ("sizes", [1], "dict"),
        ("shape", "oval", "one of 'round', 'square'"),
        ("shape", ["round"], "one of 'round', 'square'"),
    ],
)
def test_value_of_another_type_names_key_value_and_expectation(key, value, expected):
    with pytest.raises(ConfigError) as error:
        from_values(Config, {"count": 3, key: value}, "here")
    assert str(error.value) == f"here.{key}: expected {expected}, got {value!r}"


def test_key_unknown_is_named_with_the_known_ones():
    with pytest.raises(ConfigError) as error:
        from_values(Config, {"count": 3, "zeal": 1, "colour": "red"}, "here")
    known = "count, rate, name, shape, strict, limit, part, sizes"
    assert str(error.value) == f"here: unknown key 'colour'; known keys are {known}"


def test_key_missing_is_named():
    with pytest.raises(ConfigError) as error:
        from_values(Config, {"rate": 1.0}, "here")
    assert str(error.value) == "here: key 'count' is missing"


def test_field_below_its_minimum_is_named_with_its_value():
    with pytest.raises(ConfigError) as error:
        require_at_least(Config(count=0), 1, "count")
    assert str(error.value) == "Config.count must be at least 1, got 0"


def test_field_at_its_minimum_is_taken():
    require_at_least(Config(count=1, rate=1.0), 1, "count", "rate")


def test_field_below_its_minimum_is_found_after_valid_ones():
    with pytest.raises(ConfigError, match=r"Config\.rate must be at least 1, got 0.5"):
        require_at_least(Config(count=1), 1, "count", "rate")


def test_field_that_is_not_a_number_is_refused():
    with pytest.raises(ConfigError, match=r"Config\.rate must be at least 0, got nan"):
        require_at_least(Config(1, rate=math.nan), 0, "rate")


# Tuples


@dataclass(frozen=True)
class Tuples:
    bounds: tuple[int, int] = (1, 2)
    share: tuple[float, str] = (0.5, "a")
    numbers: tuple[int, ...] = ()
    words: tuple[str, ...] = ()


def test_tuple_is_taken_from_a_list_or_a_tuple():
    values = {"bounds": [3, 4], "share": [0.1, "b"], "numbers": (5, 6, 7), "words": ["c"]}
    assert from_values(Tuples, values, "here") == Tuples((3, 4), (0.1, "b"), (5, 6, 7), ("c",))


def test_tuple_of_any_length_may_be_empty():
    assert from_values(Tuples, {"numbers": [], "words": []}, "here") == Tuples()


def test_tuple_of_two_numbers_is_taken_from_one_number():
    assert from_values(Tuples, {"bounds": 7}, "here").bounds == (7, 7)


def test_tuple_items_are_converted_as_values_are():
    share = from_values(Tuples, {"share": [2, "b"]}, "here").share
    assert share == (2.0, "b")
    assert type(share[0]) is float


@pytest.mark.parametrize(
    ("key", "value", "place", "expected"),
    [
        ("bounds", [1], "", "a list of 2, got [1]"),
        ("bounds", [1, 2, 3], "", "a list of 2, got [1, 2, 3]"),
        ("bounds", "12", "", "a list of 2, got '12'"),
        ("bounds", 1.0, "", "a list of 2, got 1.0"),
        ("bounds", True, "", "a list of 2, got True"),
        ("bounds", [1, "2"], "[1]", "int, got '2'"),
        ("bounds", [True, 2], "[0]", "int, got True"),
        ("share", 1, "", "a list of 2, got 1"),
        ("numbers", 3, "", "a list, got 3"),
        ("numbers", [1, 2, 2.5], "[2]", "int, got 2.5"),
        ("words", "abc", "", "a list, got 'abc'"),
        ("words", ["a", 1], "[1]", "str, got 1"),
    ],
)
def test_tuple_of_another_form_names_the_place_and_the_expectation(key, value, place, expected):
    with pytest.raises(ConfigError) as error:
        from_values(Tuples, {key: value}, "here")
    assert str(error.value) == f"here.{key}{place}: expected {expected}"
