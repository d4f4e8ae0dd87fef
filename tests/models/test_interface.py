"""The interface vector and its parts."""

import torch

from models.interface import InterfaceLayer

PARTS = {"keys": (2, 3), "gate": (2,), "modes": (2, 5)}


def test_interface_parts_have_their_names_and_shapes():
    parts = InterfaceLayer(4, PARTS).cut(torch.randn(6, 4))
    assert {name: tuple(part.shape) for name, part in parts.items()} == {
        "keys": (6, 2, 3),
        "gate": (6, 2),
        "modes": (6, 2, 5),
    }


def test_interface_parts_follow_each_other_without_gap_or_overlap():
    interface = InterfaceLayer(4, PARTS)
    hidden = torch.randn(6, 4)
    whole = torch.cat([part.flatten(1) for part in interface.cut(hidden).values()], 1)
    assert interface.out_features == 6 + 2 + 10
    assert torch.equal(whole, hidden @ interface.weight.T + interface.bias)


def test_interface_fresh_weights_are_within_their_bound_and_biases_zero():
    interface = InterfaceLayer(4, PARTS)
    bound = (6 / (4 + 18)) ** 0.5
    assert 0.9 * bound < interface.weight.abs().max() <= bound
    assert (interface.bias == 0).all()


def test_interface_each_part_has_its_weight_and_bias():
    interface, hidden = InterfaceLayer(4, PARTS), torch.randn(6, 4)
    torch.nn.init.normal_(interface.bias)
    made = {name: hidden @ weight.T + bias for name, weight, bias in interface.each()}
    assert list(made) == list(PARTS)
    for name, part in interface.cut(hidden).items():
        torch.testing.assert_close(part.flatten(1), made[name])


@torch.no_grad()
def test_interface_part_that_is_written_to_is_the_interface():
    interface = InterfaceLayer(4, PARTS)
    for number, (_, weight, bias) in enumerate(interface.each()):
        weight.fill_(number)
        bias.fill_(-number)
    expected = torch.tensor([0.0] * 6 + [1.0] * 2 + [2.0] * 10)
    assert torch.equal(interface.weight, expected.unsqueeze(1).expand(18, 4))
    assert torch.equal(interface.bias, -expected)
