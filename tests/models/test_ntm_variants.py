"""The options of the NTM in situations made by hand."""

import dataclasses

import pytest
import torch

from models.cells import FeedForwardConfig
from models.config import ConfigError
from models.contract import unroll
from models.ntm import NTM, NTMConfig
from models.registry import model_config
from tests.models import naive
from tests.models.catalogue import LSTM, lived_in_state, make_from, random_inputs, with_interface
from tests.models.test_ntm import naive_step

TINY = NTMConfig(1, 1, memory_size=5, word_size=3, controller=FeedForwardConfig(hidden_size=2))
"""The config of the models whose interface is set, in these situations."""

STAY = {"interpolation_gate": -30, "shift_weights": [-30.0, 30.0, -30.0], "sharpening": 10}
FORWARD = STAY | {"shift_weights": [-30.0, -30.0, 30.0]}
REPLACE = {"erase_vectors": 30, "add_vectors": 30}


def tiny(**options):
    return dataclasses.replace(TINY, **options)


def stepped(model, **leaves):
    """Return state and trace one step after a fresh state with other leaves, all of one row."""
    state = model.initial_state(1)._replace(**{name: torch.as_tensor(leaf)[None] for name, leaf in leaves.items()})
    _, state, trace = model.step(torch.zeros(1, 1), state)
    return state, trace


def assert_near(actual, expected):
    torch.testing.assert_close(actual, torch.as_tensor(expected), rtol=0, atol=1e-4)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("style", ["paper", "pytorch-ntm", "ntm-lasagne"])
@pytest.mark.parametrize("order", ["together", "in-turn", "before-controller"])
@torch.no_grad()
def test_ntm_options_together_agree_with_the_naive_version(order, style, signed):
    model = make_from(
        NTMConfig(3, 2, 6, 4, 2, 2, controller=LSTM, order=order, style=style, signed_heads=signed), torch.float64, 1
    )
    naive.assert_steps_near(model, lived_in_state(model, 2), random_inputs(model, 6, 2), naive_step)


@torch.no_grad()
def test_ntm_lasagne_on_a_relu_controller_agrees_with_naive():
    controller = FeedForwardConfig(hidden_size=6, layers=2, activation="relu")
    options = {"order": "before-controller", "style": "ntm-lasagne", "controller_start": "learned"}
    model = make_from(NTMConfig(3, 2, 6, 4, 2, 2, controller=controller, **options), torch.float64)
    naive.assert_steps_near(model, model.initial_state(2), random_inputs(model, 10, 2), naive_step)


# Heads in turn


@torch.no_grad()
def test_ntm_in_turn_second_read_head_reads_the_first_write():
    config = tiny(read_heads=2, write_heads=2, order="in-turn", style="pytorch-ntm")
    words = torch.tensor([[1.0, 2, 3], [10, 20, 30]])
    model = with_interface(config, **STAY, erase_vectors=30, add_vectors=words)
    state, _ = stepped(model)
    assert_near(state.read_vectors[0], torch.stack([torch.full((3,), 1e-6), words[0]]))
    assert_near(state.memory[0, 0], words[1])


@torch.no_grad()
def test_ntm_in_turn_second_heads_address_the_first_write():
    """The first pair sees only the old memory, where location 0 holds the key; the first write head replaces it."""
    config = tiny(read_heads=2, write_heads=2, order="in-turn", style="pytorch-ntm")
    at = {"keys": [1.0, 0, 0], "key_strength": 500, "interpolation_gate": 30, "sharpening": 0}
    words = torch.tensor([[0.0, 9, 0], [0, 0, 0]])
    model = with_interface(config, **at, shift_weights=[-30.0, 30, -30], erase_vectors=30, add_vectors=words)
    memory = torch.tensor([[7.0, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [0, 1, 1]])
    _, trace = stepped(model, memory=memory)
    assert_near(trace["read_weights"][0], torch.eye(5)[[0, 1]])
    assert_near(trace["write_weights"][0], torch.eye(5)[[0, 1]])


@torch.no_grad()
def test_ntm_together_heads_read_before_any_writes():
    config = tiny(read_heads=2, write_heads=2, style="pytorch-ntm")
    model = with_interface(config, **STAY, erase_vectors=30, add_vectors=torch.tensor([[1.0, 2, 3], [10, 20, 30]]))
    state, _ = stepped(model)
    assert_near(state.read_vectors[0], torch.full((2, 3), 1e-6))
    assert_near(state.memory[0, 0], [11.0, 22, 33])


# Heads before the controller


@torch.no_grad()
def test_ntm_before_controller_reads_its_write_of_the_step():
    model = with_interface(tiny(order="before-controller"), **STAY, **REPLACE)
    state, _ = stepped(model)
    assert_near(state.memory[0, 0], torch.ones(3))
    assert_near(state.read_vectors[0, 0], torch.ones(3))


@torch.no_grad()
def test_ntm_before_controller_uses_the_previous_weightings():
    model = with_interface(tiny(order="before-controller"), **FORWARD, **REPLACE)
    _, _, trace = unroll(model, torch.zeros(3, 1, 1), model.initial_state(1), ["read_weights", "write_weights"])
    for weights in trace.values():
        assert_near(weights[:, 0, 0], torch.eye(5)[:3])
    state, _ = stepped(model)
    assert_near(state.memory[0].sum(1), [3.0, 0, 0, 0, 0])
    for weights in (state.read_weights, state.write_weights):
        assert_near(weights[0, 0], torch.eye(5)[1])


@torch.no_grad()
def test_ntm_before_controller_addresses_the_memory_that_it_has_written():
    """Location 0 holds the key until it is written, in the same step."""
    at = {"keys": [1.0, 0, 0], "key_strength": 500, "interpolation_gate": 30, "shift_weights": [-30.0, 30, -30]}
    model = with_interface(tiny(order="before-controller"), **at, erase_vectors=30, add_vectors=[0.0, 30, 0])
    memory = torch.tensor([[7.0, 0, 0], [1, 0.5, 0], [0, 1, 0], [0, 0, 1], [0, 1, 1]])
    state, _ = stepped(model, memory=memory)
    assert_near(state.read_weights[0, 0], torch.eye(5)[1])


@torch.no_grad()
def test_ntm_before_controller_writes_by_the_previous_output():
    model = with_interface(tiny(order="before-controller", style="pytorch-ntm"), **STAY, erase_vectors=30)
    part = {name: weight for name, weight, _ in model.interface.each()}
    part["add_vectors"][:, 0] = 1
    model.controller.layers[0].bias.copy_(torch.tensor([0.5, 0]))
    state, _ = stepped(model, hidden=[3.0, 0])
    assert_near(state.memory[0, 0], [3.0, 3, 3])
    assert_near(state.hidden[0], torch.tensor([0.5, 0]).tanh())
    _, state, _ = model.step(torch.zeros(1, 1), state)
    assert_near(state.memory[0, 0], torch.full((3,), 0.5).tanh())


@torch.no_grad()
def test_ntm_before_controller_shows_its_outputs_the_controller_only():
    model = with_interface(tiny(order="before-controller", read_heads=3), **STAY, **REPLACE)
    assert model.output.in_features == 2
    model.output.weight.copy_(torch.tensor([[2.0, 3]]))
    model.controller.layers[0].bias.copy_(torch.tensor([0.5, -1]))
    outputs, _, _ = model.step(torch.zeros(1, 1), model.initial_state(1))
    assert_near(outputs[0], torch.tensor([0.5, -1]).tanh() @ torch.tensor([2.0, 3]).unsqueeze(1))


def test_ntm_state_has_hidden_only_with_heads_before_controller():
    assert NTM(TINY).initial_state(2).hidden is None
    assert NTM(tiny(order="in-turn")).initial_state(2).hidden is None
    assert torch.equal(NTM(tiny(order="before-controller")).initial_state(2).hidden, torch.zeros(2, 2))


# Styles


@torch.no_grad()
@pytest.mark.parametrize(
    ("style", "expected"), [("paper", [0.9999, -0.9999]), ("pytorch-ntm", [5, -5]), ("ntm-lasagne", [1, 0])]
)
def test_ntm_style_bounds_add_vectors_like_its_implementation(style, expected):
    model = with_interface(tiny(word_size=2, style=style), **STAY, erase_vectors=30, add_vectors=[5.0, -5])
    state, _ = stepped(model)
    assert_near(state.memory[0, 0], torch.tensor(expected, dtype=torch.float32))


@torch.no_grad()
@pytest.mark.parametrize(("style", "expected"), [("paper", 0.5), ("pytorch-ntm", 0.5), ("ntm-lasagne", 1)])
def test_ntm_style_bounds_keys_like_its_implementation(style, expected):
    """For a key of (1, -9), the locations with (1, 1) and (-1, -1) differ only if -9 is not cut off at 0."""
    at = {"keys": [9.0, -9], "interpolation_gate": 30, "shift_weights": [-30.0, 30, -30], "sharpening": -30}
    model = with_interface(tiny(memory_size=2, word_size=2, style=style), **at, key_strength=500)
    _, trace = stepped(model, memory=torch.tensor([[1.0, 1], [-1, -1]]))
    assert_near(trace["read_weights"][0, 0, 0], float(expected))


@torch.no_grad()
@pytest.mark.parametrize(
    ("told_value", "gate"), [(-9.0, 0), (-2.5, 0), (-1.25, 0.25), (0.0, 0.5), (1.0, 0.7), (2.5, 1), (9.0, 1)]
)
def test_ntm_lasagne_gates_are_hard(told_value, gate):
    model = with_interface(
        tiny(style="ntm-lasagne"), **STAY | {"interpolation_gate": told_value}, erase_vectors=told_value
    )
    state, trace = stepped(model, memory=torch.ones(5, 3))
    assert_near(trace["interpolation_gate"], torch.full((1, 2), float(gate)))
    used = trace["write_weights"][0, 0, 0]
    assert_near(state.memory[0, 0], (1 - used * gate).expand(3))


@torch.no_grad()
@pytest.mark.parametrize(("told_value", "strength"), [(-3.0, 0.0), (0.0, 0.0), (4.0, 4.0)])
def test_ntm_lasagne_strength_and_sharpening_are_straight_above_zero(told_value, strength):
    model = with_interface(tiny(style="ntm-lasagne"), key_strength=told_value, sharpening=told_value)
    _, trace = stepped(model)
    assert trace["key_strength"].tolist() == [[strength] * 2]
    assert trace["sharpening"].tolist() == [[1 + strength] * 2]


@torch.no_grad()
def test_ntm_lasagne_head_moved_beyond_the_end_is_uniform():
    model = with_interface(tiny(style="ntm-lasagne"), **FORWARD)
    _, trace = stepped(model, read_weights=torch.eye(5)[[4]], write_weights=torch.eye(5)[[3]])
    assert_near(trace["read_weights"][0, 0], torch.full((5,), 0.2))
    assert_near(trace["write_weights"][0, 0], torch.eye(5)[4])


@torch.no_grad()
def test_ntm_pytorch_head_moved_beyond_the_end_wraps_around():
    model = with_interface(tiny(style="pytorch-ntm"), **FORWARD)
    _, trace = stepped(model, read_weights=torch.eye(5)[[4]])
    assert_near(trace["read_weights"][0, 0], torch.eye(5)[0])


@torch.no_grad()
def test_ntm_pytorch_head_that_stood_nowhere_and_stays_goes_nowhere():
    model = with_interface(tiny(style="pytorch-ntm", weights_start="zero"), **STAY | {"interpolation_gate": -100})
    _, trace = stepped(model)
    assert_near(trace["read_weights"], torch.zeros(1, 1, 5))


# Rectified heads


@torch.no_grad()
@pytest.mark.parametrize("style", ["paper", "pytorch-ntm", "ntm-lasagne"])
def test_ntm_rectified_heads_write_positive_values_unchanged(style):
    model = with_interface(
        tiny(word_size=2, style=style, rectified_heads=True), **STAY, erase_vectors=30, add_vectors=[5.0, -5]
    )
    state, _ = stepped(model)
    assert_near(state.memory[0, 0], [5.0, 0])


@torch.no_grad()
def test_ntm_rectified_heads_keep_positive_keys_unchanged():
    """For a key of (1, 9), the locations with (1, 9) and (1, 1) are alike if 9 is cut off at 1."""
    at = {"keys": [1.0, 9], "interpolation_gate": 30, "shift_weights": [-30.0, 30, -30], "sharpening": -30}
    config = tiny(memory_size=2, word_size=2, style="ntm-lasagne", rectified_heads=True)
    _, trace = stepped(with_interface(config, **at, key_strength=500), memory=torch.tensor([[1.0, 9], [1, 1]]))
    assert_near(trace["read_weights"][0, 0], [1.0, 0])


# Signed heads


@torch.no_grad()
def test_ntm_signs_turn_add_vectors_and_never_enlarge_them():
    told_to = STAY | {"erase_vectors": 30, "add_vectors": 30, "add_signs": [-7.0, -0.5, 7.0]}
    state, _ = stepped(with_interface(tiny(style="ntm-lasagne", signed_heads=True), **told_to))
    assert_near(state.memory[0, 0], [-1.0, -0.5, 1])


@torch.no_grad()
def test_ntm_signs_turn_keys():
    at = {"keys": 1, "key_strength": 500, "interpolation_gate": 30, "shift_weights": [-30.0, 30, -30]}
    signs = torch.tensor([[1.0, 1, 1], [-1, 1, 1]])
    model = with_interface(tiny(memory_size=2, style="ntm-lasagne", signed_heads=True), **at, key_signs=signs)
    _, trace = stepped(model, memory=torch.tensor([[1.0, 1, 1], [-1, 1, 1]]))
    assert_near(trace["read_weights"][0, 0], [1.0, 0])
    assert_near(trace["write_weights"][0, 0], [0.0, 1])


def test_ntm_interface_has_its_parts_in_this_order():
    """The order of a checkpoint's weights, row by row."""
    parts = NTM(NTMConfig(3, 2, 6, 4, read_heads=2, write_heads=3, signed_heads=True)).interface.parts
    always = ["keys", "key_strength", "interpolation_gate", "shift_weights", "sharpening"]
    assert list(parts) == [*always, "erase_vectors", "add_vectors", "key_signs", "add_signs"]
    assert (parts["key_signs"], parts["add_signs"]) == ((5, 4), (3, 4))


# Options that cannot be


@pytest.mark.parametrize(("reads", "writes"), [(1, 2), (3, 2)])
def test_ntm_config_of_unpaired_heads_in_turn_names_both_fields(reads, writes):
    with pytest.raises(ConfigError) as error:
        NTMConfig(3, 2, read_heads=reads, write_heads=writes, order="in-turn")
    expected = f"NTMConfig.write_heads must be the {reads} read_heads, for order is 'in-turn', got {writes}"
    assert str(error.value) == expected
    for order in ("together", "before-controller"):
        assert NTMConfig(3, 2, read_heads=reads, write_heads=writes, order=order).order == order


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("order", "'together', 'in-turn', 'before-controller'"),
        ("style", "'paper', 'pytorch-ntm', 'ntm-lasagne'"),
        ("memory_start", "'constant', 'random', 'learned'"),
        ("weights_start", "'one-hot', 'zero', 'uniform', 'random', 'learned'"),
        ("reads_start", "'constant', 'random', 'learned'"),
        ("controller_start", "'zero', 'random', 'learned'"),
    ],
)
def test_ntm_option_unknown_names_key_value_and_expectation(name, expected):
    with pytest.raises(ConfigError) as error:
        model_config("ntm", {"input_size": 3, "output_size": 2, name: "early"})
    assert str(error.value) == f"model.{name}: expected one of {expected}, got 'early'"


def test_ntm_signed_heads_of_another_type_are_refused():
    with pytest.raises(ConfigError, match=r"model\.signed_heads: expected bool, got 1"):
        model_config("ntm", {"input_size": 3, "output_size": 2, "signed_heads": 1})


@pytest.mark.parametrize("memory_size", [0, -4])
def test_ntm_state_without_locations_is_refused(memory_size):
    with pytest.raises(ConfigError, match=rf"NTMConfig\.memory_size must be at least 1, got {memory_size}"):
        NTM(TINY).initial_state(1, memory_size)
