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


def test_field_below_its_minimum_is_found_behind_one_that_is_not():
    with pytest.raises(ConfigError, match=r"Config\.rate must be at least 1, got 0.5"):
        require_at_least(Config(count=1), 1, "count", "rate")


def test_field_that_is_not_a_number_is_refused():
    with pytest.raises(ConfigError, match=r"Config\.rate must be at least 0, got nan"):
        require_at_least(Config(1, rate=math.nan), 0, "rate")
