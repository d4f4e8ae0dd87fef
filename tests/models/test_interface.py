"""The interface vector and its parts."""

import numpy as np
import pytest
import torch

from models.config import ConfigError
from models.dnc import DNC, DNCConfig
from models.interface import InterfaceLayer
from models.ntm import NTM, NTMConfig
from models.registry import model_config
from tests.models import naive
from tests.models.catalogue import make_from

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


# Stored programs


@torch.no_grad()
def several_programs(programs=3, key_size=4):
    """Return an interface of several programs with random weights, float64, and an output of the controller."""
    interface = InterfaceLayer(4, PARTS, programs, key_size).double()
    for parameter in interface.parameters():
        torch.nn.init.normal_(parameter)
    return interface, torch.randn(6, 4, dtype=torch.float64)


def flat(parts):
    return torch.cat([parts[name].flatten(1) for name in PARTS], 1)


def of_program(interface, hidden, number):
    """Return the interface vector of one program alone."""
    weight, bias = (of.chunk(interface.programs)[number] for of in (interface.weight, interface.bias))
    return hidden @ weight.T + bias


@torch.no_grad()
def test_one_program_is_the_plain_layer():
    for model in (DNC(DNCConfig(3, 2)), NTM(NTMConfig(3, 2))):
        names = {name for name, _ in model.interface.named_parameters()}
        assert names == {"weight", "bias"}
        assert "program_weights" not in model.interface.cut(torch.randn(2, model.interface.in_features))


@torch.no_grad()
def test_programs_are_mixed_as_loops_mix_them():
    interface, hidden = several_programs()
    parts = interface.cut(hidden)
    weights = {f"interface.{name}": weight.numpy() for name, weight in interface.state_dict().items()}
    for row, h in enumerate(hidden.numpy()):
        vector, shares = naive.interface(DNCConfig(1, 1, programs=3), weights, h)
        np.testing.assert_allclose(flat(parts)[row], vector, rtol=0, atol=1e-12)
        np.testing.assert_allclose(parts["program_weights"][row], shares["program_weights"], rtol=0, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("number", [0, 1, 2])
def test_query_equal_to_a_key_selects_its_program(number):
    interface, hidden = several_programs()
    interface.selector.query.weight.fill_(0)
    interface.selector.query.bias[:-1] = interface.selector.keys[number]
    interface.selector.query.bias[-1] = 1e4
    parts = interface.cut(hidden)
    assert torch.equal(parts["program_weights"], torch.eye(3, dtype=torch.float64)[[number] * 6])
    torch.testing.assert_close(flat(parts), of_program(interface, hidden, number))


@torch.no_grad()
def test_programs_of_equal_keys_have_equal_shares():
    interface, hidden = several_programs()
    interface.selector.keys[:] = interface.selector.keys[0]
    mean = sum(of_program(interface, hidden, number) for number in range(3)) / 3
    torch.testing.assert_close(flat(interface.cut(hidden)), mean)


@torch.no_grad()
def test_mixed_vector_is_that_of_the_mixed_weights():
    interface, hidden = several_programs()
    parts = interface.cut(hidden)
    weights = torch.einsum("bp,psh->bsh", parts["program_weights"], torch.stack(interface.weight.chunk(3)))
    biases = parts["program_weights"] @ torch.stack(interface.bias.chunk(3))
    torch.testing.assert_close(flat(parts), torch.einsum("bsh,bh->bs", weights, hidden) + biases)


def test_programs_without_a_length_have_finite_gradients():
    interface, hidden = several_programs()
    for parameter in interface.selector.parameters():
        torch.nn.init.zeros_(parameter)
    flat(interface.cut(hidden)).square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in interface.parameters())


def test_fresh_programs_differ_within_the_bound_of_one():
    interface = InterfaceLayer(4, PARTS, programs=3)
    bound = (6 / (4 + 18)) ** 0.5
    programs = interface.weight.chunk(3)
    assert all(0.9 * bound < program.abs().max() <= bound for program in programs)
    assert not torch.equal(programs[0], programs[1])


@pytest.mark.parametrize("kind", ["dnc", "ntm"])
@pytest.mark.parametrize("option", ["programs", "program_key_size"])
def test_programs_of_size_0_are_refused_by_name(kind, option):
    with pytest.raises(ConfigError, match=rf"Config\.{option} must be at least 1, got 0"):
        model_config(kind, {"input_size": 3, "output_size": 2, option: 0})


@torch.no_grad()
def test_interface_of_several_programs_yields_parts_of_each():
    interface = make_from(DNCConfig(3, 2, programs=2)).interface
    named = list(interface.each())
    assert [name for name, _, _ in named] == [*interface.parts] * 2
    assert torch.equal(torch.cat([weight for _, weight, _ in named]), interface.weight)
