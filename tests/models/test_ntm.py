"""The NTM against a naive version of Graves, Wayne & Danihelka, arXiv 1410.5401."""

import numpy as np
import pytest
import torch

from models.cells import FeedForwardConfig
from models.config import ConfigError
from models.contract import unroll
from models.ntm import NTM, NTMConfig
from tests.models import naive
from tests.models.catalogue import CATALOGUE, lived_in_state, make, random_inputs, told

NTMS = [name for name in CATALOGUE if name.startswith("ntm")]


def naive_step(config, weights, x, state):
    """Return outputs, next state and trace of one row."""
    reads, writes = config.read_heads, config.write_heads
    h, controller = naive.cell(
        config.controller, weights, np.concatenate([x, state["read_vectors"].ravel()]), state["controller"]
    )
    told = naive_interface(config, naive.linear(weights, "interface", h))

    weightings = []
    for head, previous in enumerate([*state["read_weights"], *state["write_weights"]]):
        by_content = naive.content(state["memory"], told["keys"][head], told["key_strength"][head])
        gate = told["interpolation_gate"][head]
        gated = gate * by_content + (1 - gate) * previous
        shifted = naive_shift(gated, told["shift_weights"][head])
        powers = shifted ** told["sharpening"][head]
        weightings.append(powers / powers.sum())
    read_weights, write_weights = np.array(weightings[:reads]), np.array(weightings[reads:])
    assert len(write_weights) == writes

    read_vectors = np.array([naive.read(state["memory"], w) for w in read_weights])
    memory = naive.write(state["memory"], write_weights, told["erase_vectors"], told["add_vectors"])
    outputs = naive.linear(weights, "output", np.concatenate([h, read_vectors.ravel()]))
    next_state = {
        "controller": controller,
        "memory": memory,
        "read_weights": read_weights,
        "write_weights": write_weights,
        "read_vectors": read_vectors,
    }
    kept = ("key_strength", "interpolation_gate", "shift_weights", "sharpening")
    trace = {name: told[name] for name in kept} | {"read_weights": read_weights, "write_weights": write_weights}
    return outputs, next_state, trace


def naive_interface(config, vector):
    heads, writes, word = config.read_heads + config.write_heads, config.write_heads, config.word_size
    parts = [("keys", (heads, word)), ("key_strength", (heads,)), ("interpolation_gate", (heads,))]
    parts += [("shift_weights", (heads, config.shift_width)), ("sharpening", (heads,))]
    parts += [("erase_vectors", (writes, word)), ("add_vectors", (writes, word))]
    told = naive.cut(vector, parts)
    told["keys"], told["add_vectors"] = np.tanh(told["keys"]), np.tanh(told["add_vectors"])
    told["key_strength"], told["sharpening"] = (
        naive.softplus(told["key_strength"]),
        1 + naive.softplus(told["sharpening"]),
    )
    for name in ("interpolation_gate", "erase_vectors"):
        told[name] = naive.sigmoid(told[name])
    told["shift_weights"] = np.array([naive.softmax(shift) for shift in told["shift_weights"]])
    return told


def naive_shift(weighting, shifts):
    slots, half = len(weighting), len(shifts) // 2
    shifted = np.zeros(slots)
    for i in range(slots):
        for offset in range(-half, half + 1):
            shifted[i] += weighting[(i - offset) % slots] * shifts[offset + half]
    return shifted


@pytest.mark.parametrize("start", ["fresh", "lived-in"])
@pytest.mark.parametrize("name", NTMS)
@torch.no_grad()
def test_ntm_step_agrees_with_the_naive_version(name, start):
    model = make(name, torch.float64)
    state = model.initial_state(2) if start == "fresh" else lived_in_state(model, 2)
    naive.assert_steps_near(model, state, random_inputs(model, 10, 2), naive_step)


def test_ntm_state_before_the_first_step_is_a_constant_memory_with_every_head_on_slot_0():
    state = NTM(NTMConfig(3, 2, memory_size=4, word_size=3, read_heads=2, write_heads=3)).initial_state(2)
    assert (state.memory == 1e-6).all()
    assert (state.read_vectors == 1e-6).all()
    assert (state.controller.h == 0).all()
    assert (state.controller.c == 0).all()
    assert torch.equal(state.read_weights, torch.tensor([1.0, 0, 0, 0]).expand(2, 2, 4))
    assert torch.equal(state.write_weights, torch.tensor([1.0, 0, 0, 0]).expand(2, 3, 4))


def test_ntm_controller_sees_what_was_read_at_the_step_before():
    model = make("ntm-3-read-heads", torch.float64)
    state = lived_in_state(model, 2)
    for head in range(3):
        other = state.read_vectors.clone()
        other[:, head] += 1
        _, changed, _ = model.step(torch.zeros(2, 3, dtype=torch.float64), state._replace(read_vectors=other))
        _, same, _ = model.step(torch.zeros(2, 3, dtype=torch.float64), state)
        assert (changed.controller.h != same.controller.h).any()


@torch.no_grad()
def test_ntm_told_to_shift_forward_walks_over_the_slots_and_round():
    config = NTMConfig(1, 1, memory_size=4, word_size=3, controller=FeedForwardConfig(hidden_size=2))
    model = told(config, interpolation_gate=-30, shift_weights=[-30, -30, 30], sharpening=10)
    _, _, trace = unroll(model, torch.zeros(6, 1, 1), model.initial_state(1), ["read_weights", "write_weights"])
    expected = torch.eye(4)[[1, 2, 3, 0, 1, 2]]
    torch.testing.assert_close(trace["read_weights"][:, 0, 0], expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(trace["write_weights"][:, 0, 0], expected, rtol=0, atol=1e-6)


@torch.no_grad()
def test_ntm_reads_a_word_one_step_after_it_is_written():
    config = NTMConfig(1, 1, memory_size=4, word_size=3, controller=FeedForwardConfig(hidden_size=2))
    model = told(
        config, interpolation_gate=-30, shift_weights=[-30, 30, -30], sharpening=10, erase_vectors=30, add_vectors=30
    )
    state = model.initial_state(1)
    _, state, _ = model.step(torch.zeros(1, 1), state)
    torch.testing.assert_close(state.read_vectors, torch.full((1, 1, 3), 1e-6), rtol=0, atol=1e-8)
    torch.testing.assert_close(state.memory[0, 0], torch.ones(3))
    _, state, _ = model.step(torch.zeros(1, 1), state)
    torch.testing.assert_close(state.read_vectors, torch.ones(1, 1, 3))


@pytest.mark.parametrize(
    "field", ["input_size", "output_size", "memory_size", "word_size", "read_heads", "write_heads", "shift_width"]
)
def test_ntm_config_of_size_0_names_the_field_and_the_value(field):
    with pytest.raises(ConfigError, match=rf"NTMConfig\.{field} must be at least 1, got 0"):
        NTMConfig(**{"input_size": 3, "output_size": 2, field: 0})


@pytest.mark.parametrize("width", [2, 4])
def test_ntm_config_of_an_even_shift_width_names_the_field_and_the_value(width):
    with pytest.raises(ConfigError, match=rf"NTMConfig\.shift_width must be odd, got {width}"):
        NTMConfig(3, 2, shift_width=width)
