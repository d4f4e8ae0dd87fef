"""The interface vector and its parts."""

import torch

from models.interface import Interface

PARTS = {"keys": (2, 3), "gate": (2,), "modes": (2, 5)}


def test_interface_parts_have_their_names_and_shapes():
    parts = Interface(4, PARTS).cut(torch.randn(6, 4))
    assert {name: tuple(part.shape) for name, part in parts.items()} == {
        "keys": (6, 2, 3),
        "gate": (6, 2),
        "modes": (6, 2, 5),
    }


def test_interface_parts_follow_each_other_without_gap_or_overlap():
    interface = Interface(4, PARTS)
    hidden = torch.randn(6, 4)
    whole = torch.cat([part.flatten(1) for part in interface.cut(hidden).values()], 1)
    assert interface.out_features == 6 + 2 + 10
    assert torch.equal(whole, hidden @ interface.weight.T + interface.bias)


def test_interface_fresh_weights_are_within_their_bound_and_biases_zero():
    interface = Interface(4, PARTS)
    bound = (6 / (4 + 18)) ** 0.5
    assert 0.9 * bound < interface.weight.abs().max() <= bound
    assert (interface.bias == 0).all()
