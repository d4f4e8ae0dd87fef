"""Nested states and their flat form."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from models.state import StateError, flatten, map_leaves, unflatten


class Inner(NamedTuple):
    h: Tensor
    c: Tensor


class Nothing(NamedTuple):
    pass


class Outer(NamedTuple):
    controller: Inner
    empty: Nothing
    memory: Tensor


class Varied(NamedTuple):
    link: Tensor | None
    controller: Inner
    columns: Tensor | None


def a_state(batch=2):
    return Outer(Inner(torch.randn(batch, 3), torch.randn(batch, 3)), Nothing(), torch.randn(batch, 5, 4))


def a_varied_state(link=None):
    return Varied(link, a_state().controller, None)


def test_flatten_names_leaves_by_path_in_field_order():
    state = a_state()
    leaves = flatten(state)
    assert list(leaves) == ["controller.h", "controller.c", "memory"]
    assert leaves["controller.c"] is state.controller.c
    assert leaves["memory"] is state.memory


def test_unflatten_takes_leaves_in_any_order():
    state = a_state()
    shuffled = dict(reversed(flatten(state).items()))
    again = unflatten(shuffled, like=a_state(1))
    assert (type(again), type(again.controller), type(again.empty)) == (Outer, Inner, Nothing)
    assert again.controller.h is state.controller.h
    assert again.controller.c is state.controller.c
    assert again.memory is state.memory


def test_unflatten_without_a_leaf_names_it_and_the_expected():
    leaves = flatten(a_state())
    del leaves["controller.c"]
    with pytest.raises(StateError) as error:
        unflatten(leaves, like=a_state())
    assert str(error.value) == "state leaf 'controller.c' is missing; expected controller.h, controller.c, memory"


def test_unflatten_with_an_unknown_leaf_names_it_and_the_expected():
    with pytest.raises(StateError) as error:
        unflatten(flatten(a_state()) | {"usage": torch.zeros(2, 5)}, like=a_state())
    assert str(error.value) == "unknown state leaf 'usage'; expected controller.h, controller.c, memory"


@pytest.mark.parametrize("shape", [(2, 5, 3), (2, 4, 5), (2, 5), (2, 5, 4, 1), (5, 4), ()])
def test_unflatten_of_another_shape_names_leaf_and_both_shapes(shape):
    with pytest.raises(StateError) as error:
        unflatten(flatten(a_state()) | {"memory": torch.zeros(shape)}, like=a_state())
    assert str(error.value) == f"state leaf 'memory': expected shape [B, 5, 4], got {list(shape)}"


def test_unflatten_of_another_dtype_names_leaf_and_both_dtypes():
    with pytest.raises(StateError) as error:
        unflatten(flatten(a_state()) | {"memory": torch.zeros(2, 5, 4).double()}, like=a_state())
    assert str(error.value) == "state leaf 'memory': expected torch.float32, got torch.float64"


def test_map_leaves_reaches_every_leaf_and_keeps_the_structure():
    state = a_state()
    doubled = map_leaves(lambda leaf: 2 * leaf, state)
    assert type(doubled) is Outer
    assert type(doubled.controller) is Inner
    for name, leaf in flatten(doubled).items():
        assert torch.equal(leaf, 2 * flatten(state)[name])


def test_flatten_leaves_out_a_field_that_is_none():
    assert list(flatten(a_varied_state())) == ["controller.h", "controller.c"]
    assert list(flatten(a_varied_state(torch.zeros(2, 3)))) == ["link", "controller.h", "controller.c"]


def test_unflatten_keeps_a_field_that_is_none():
    state = a_varied_state()
    again = unflatten(flatten(state), like=a_varied_state())
    assert (type(again), again.link, again.columns) == (Varied, None, None)
    assert again.controller.h is state.controller.h
    assert again.controller.c is state.controller.c


def test_unflatten_with_a_leaf_for_none_names_it():
    with pytest.raises(StateError) as error:
        unflatten(flatten(a_varied_state(torch.zeros(2, 3))), like=a_varied_state())
    assert str(error.value) == "unknown state leaf 'link'; expected controller.h, controller.c"


def test_unflatten_without_a_leaf_of_the_variant_names_it():
    with pytest.raises(StateError) as error:
        unflatten(flatten(a_varied_state()), like=a_varied_state(torch.zeros(2, 3)))
    assert str(error.value) == "state leaf 'link' is missing; expected link, controller.h, controller.c"


def test_map_leaves_passes_over_a_field_that_is_none():
    state = a_varied_state()
    mapped = map_leaves(lambda leaf: leaf + 1, state)
    assert (mapped.link, mapped.columns) == (None, None)
    assert torch.equal(mapped.controller.h, state.controller.h + 1)
