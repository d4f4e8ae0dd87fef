"""The NTM against a naive version of Graves, Wayne & Danihelka, arXiv 1410.5401."""

import numpy as np
import pytest
import torch

from models.cells import FeedForwardConfig
from models.config import ConfigError
from models.contract import unroll
from models.ntm import NTM, NTMConfig
from models.state import flatten
from tests.models import naive
from tests.models.catalogue import CATALOGUE, lived_in_state, make, random_inputs, with_interface
from tests.models.identities import assert_traces_explain

NTMS = [name for name in CATALOGUE if name.startswith("ntm")]


def naive_step(config, weights, x, state):
    """Return outputs, next state and trace of one row."""
    if config.order == "before-controller":
        return naive_step_before(config, weights, x, state)
    h, controller = naive.cell(
        config.controller, weights, np.concatenate([x, state["read_vectors"].ravel()]), state["controller"]
    )
    controls = naive_interface(config, *naive.interface(config, weights, h))
    act = naive_heads_in_turn if config.order == "in-turn" else naive_heads_together
    heads = act(config, controls, state)
    outputs = naive.linear(weights, "output", np.concatenate([h, heads["read_vectors"].ravel()]))
    addressed = heads.pop("addressed")
    return outputs, {"controller": controller} | heads, naive_trace(controls, heads, addressed)


def naive_heads_together(config, controls, state):
    """All heads address the memory as it was, then all read it, then all write."""
    memory, reads = state["memory"], config.read_heads
    before = [*state["read_weights"], *state["write_weights"]]
    addressed = [naive_addressing(config, controls, head, memory, w) for head, w in enumerate(before)]
    weightings = np.array([found[-1] for found in addressed])
    return {
        "addressed": addressed,
        "memory": naive.write(memory, weightings[reads:], controls["erase_vectors"], controls["add_vectors"]),
        "read_weights": weightings[:reads],
        "write_weights": weightings[reads:],
        "read_vectors": np.array([naive.read(memory, w) for w in weightings[:reads]]),
    }


def naive_heads_in_turn(config, controls, state):
    """Read head 1, write head 1, read head 2, write head 2, ...: each acts on the memory that the last one left."""
    memory, reads = state["memory"], config.read_heads
    reading, writing, read_vectors = [], [], []
    for turn in range(reads):
        reading.append(naive_addressing(config, controls, turn, memory, state["read_weights"][turn]))
        read_vectors.append(naive.read(memory, reading[turn][-1]))
        writing.append(naive_addressing(config, controls, reads + turn, memory, state["write_weights"][turn]))
        memory = naive.write(
            memory, [writing[turn][-1]], [controls["erase_vectors"][turn]], [controls["add_vectors"][turn]]
        )
    read_weights, write_weights = ([found[-1] for found in each] for each in (reading, writing))
    lists = {"read_weights": read_weights, "write_weights": write_weights, "read_vectors": read_vectors}
    return {"memory": memory, "addressed": reading + writing} | {name: np.array(each) for name, each in lists.items()}


def naive_step_before(config, weights, x, state):
    """Write, read, run the controller, and then compute the weightings of the next step."""
    acted = naive_interface(config, *naive.interface(config, weights, state["hidden"]))
    memory = naive.write(state["memory"], state["write_weights"], acted["erase_vectors"], acted["add_vectors"])
    read_vectors = np.array([naive.read(memory, w) for w in state["read_weights"]])

    h, controller = naive.cell(
        config.controller, weights, np.concatenate([x, read_vectors.ravel()]), state["controller"]
    )
    controls = naive_interface(config, *naive.interface(config, weights, h))
    next_state = {"controller": controller, "memory": memory, "read_vectors": read_vectors, "hidden": h}
    before, reads = [*state["read_weights"], *state["write_weights"]], config.read_heads
    addressed = [naive_addressing(config, controls, head, memory, w) for head, w in enumerate(before)]
    weightings = np.array([found[-1] for found in addressed])
    next_state |= {"read_weights": weightings[:reads], "write_weights": weightings[reads:]}
    used = state | {"read_vectors": read_vectors}
    wrote = controls | {name: acted[name] for name in ("erase_vectors", "add_vectors")}
    return naive.linear(weights, "output", h), next_state, naive_trace(wrote, used, addressed)


def naive_addressing(config, controls, head, memory, previous):
    """Return the weightings of head number `head` among all heads: by content, gated, shifted, and sharpened."""
    style = STYLES[config.style]
    beta = naive.scaled(config, controls["key_strength"][head], memory)
    by_content = naive.content(memory, controls["keys"][head], beta, style["similarity"])
    gate = controls["interpolation_gate"][head]
    gated = gate * by_content + (1 - gate) * previous
    shifted = style["shift"](gated, controls["shift_weights"][head])
    return by_content, gated, shifted, style["sharpen"](shifted, controls["sharpening"][head])


def naive_trace(controls, used, addressed):
    """Return the trace. used: weightings and vectors of reads and writes; addressed: the weightings of each head."""
    trace = {name: values for name, values in controls.items() if name not in ("key_signs", "add_signs")}
    trace |= {name: used[name] for name in ("read_weights", "write_weights", "read_vectors")}
    stages = ("content_weights", "gated_weights", "shifted_weights")
    return trace | {name: np.array([found[k] for found in addressed]) for k, name in enumerate(stages)}


def naive_interface(config, vector, shares):
    heads, writes, word = config.read_heads + config.write_heads, config.write_heads, config.word_size
    parts = [("keys", (heads, word)), ("key_strength", (heads,)), ("interpolation_gate", (heads,))]
    parts += [("shift_weights", (heads, config.shift_width)), ("sharpening", (heads,))]
    parts += [("erase_vectors", (writes, word)), ("add_vectors", (writes, word))]
    parts += [("key_signs", (heads, word)), ("add_signs", (writes, word))] if config.signed_heads else []
    controls, style = naive.cut(vector, parts), STYLES[config.style]
    for name in ("keys", "add_vectors"):
        controls[name] = np.maximum(controls[name], 0) if config.rectified_heads else style["word"](controls[name])
    for name in ("interpolation_gate", "erase_vectors"):
        controls[name] = style["gate"](controls[name])
    controls["key_strength"] = style["positive"](controls["key_strength"])
    controls["sharpening"] = 1 + style["positive"](controls["sharpening"])
    controls["shift_weights"] = np.array([naive.softmax(shift) for shift in controls["shift_weights"]])
    if config.signed_heads:
        controls["keys"] = controls["keys"] * np.clip(controls["key_signs"], -1, 1)
        controls["add_vectors"] = controls["add_vectors"] * np.clip(controls["add_signs"], -1, 1)
    return controls | shares


def naive_shift(weighting, shifts):
    slots, half = len(weighting), len(shifts) // 2
    shifted = np.zeros(slots)
    for i in range(slots):
        for offset in range(-half, half + 1):
            shifted[i] += weighting[(i - offset) % slots] * shifts[offset + half]
    return shifted


def naive_flat_shift(weighting, shifts):
    """Weight that moves beyond the first or the last location is lost."""
    shifted = np.zeros(len(weighting))
    for slot, weight in enumerate(weighting):
        for entry, share in enumerate(shifts):
            target = slot + entry - (len(shifts) - 1) // 2
            if 0 <= target < len(weighting):
                shifted[target] += weight * share
    return shifted


STYLES = {
    "paper": {
        "word": np.tanh,
        "positive": naive.softplus,
        "gate": naive.sigmoid,
        "similarity": naive.cosine,
        "shift": naive_shift,
        "sharpen": lambda w, gamma: w**gamma / sum(w**gamma),
    },
    "pytorch-ntm": {
        "word": lambda x: x,
        "positive": naive.softplus,
        "gate": naive.sigmoid,
        "similarity": lambda k, m: naive.dot(k, m) / np.sqrt((naive.dot(k, k) + 1e-12) * (naive.dot(m, m) + 1e-12)),
        "shift": naive_shift,
        "sharpen": lambda w, gamma: w**gamma / (sum(w**gamma) + 1e-16),
    },
    "ntm-lasagne": {
        "word": lambda x: np.clip(x, 0, 1),
        "positive": lambda x: np.maximum(x, 0),
        "gate": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
        "similarity": lambda k, m: naive.dot(k, m) / np.sqrt(naive.dot(k, k) * naive.dot(m, m) + 1e-6),
        "shift": naive_flat_shift,
        "sharpen": lambda w, gamma: (w + 1e-6) ** gamma / sum((w + 1e-6) ** gamma),
    },
}


@pytest.mark.parametrize("start", ["fresh", "lived-in"])
@pytest.mark.parametrize("name", NTMS)
@torch.no_grad()
def test_ntm_step_agrees_with_the_naive_version(name, start):
    model = make(name, torch.float64)
    state = model.initial_state(2) if start == "fresh" else lived_in_state(model, 2)
    naive.assert_steps_near(model, state, random_inputs(model, 10, 2), naive_step)


@pytest.mark.parametrize("slots", [1, 4, 17])
@pytest.mark.parametrize("name", NTMS)
@torch.no_grad()
def test_ntm_step_at_another_memory_size_agrees_with_naive(name, slots):
    model = make(name, torch.float64)
    naive.assert_steps_near(model, model.initial_state(2, slots), random_inputs(model, 4, 2), naive_step)


@pytest.mark.parametrize("size", [None, 9])
@pytest.mark.parametrize("name", NTMS)
@torch.no_grad()
def test_ntm_state_follows_from_the_traces(name, size):
    model = make(name, torch.float64)
    _, state, _ = unroll(model, random_inputs(model, 6, 2), model.initial_state(2, size))
    for inputs in random_inputs(model, 3, 2):
        before = naive.arrays(flatten(state))
        _, state, trace = model.step(inputs, state)
        assert_traces_explain(model.config, before, naive.arrays(flatten(state)), naive.arrays(trace))


def test_ntm_first_state_has_constant_memory_and_heads_at_0():
    state = NTM(NTMConfig(3, 2, memory_size=4, word_size=3, read_heads=2, write_heads=3)).initial_state(2)
    assert (state.memory == 1e-6).all()
    assert (state.read_vectors == 1e-6).all()
    assert (state.controller.h == 0).all()
    assert (state.controller.c == 0).all()
    assert torch.equal(state.read_weights, torch.tensor([1.0, 0, 0, 0]).expand(2, 2, 4))
    assert torch.equal(state.write_weights, torch.tensor([1.0, 0, 0, 0]).expand(2, 3, 4))


def test_ntm_controller_sees_the_previous_read_vectors():
    model = make("ntm-3-read-heads", torch.float64)
    state = lived_in_state(model, 2)
    for head in range(3):
        other = state.read_vectors.clone()
        other[:, head] += 1
        _, changed, _ = model.step(torch.zeros(2, 3, dtype=torch.float64), state._replace(read_vectors=other))
        _, same, _ = model.step(torch.zeros(2, 3, dtype=torch.float64), state)
        assert (changed.controller.h != same.controller.h).any()


@torch.no_grad()
def test_ntm_shifting_forward_visits_all_locations_in_a_circle():
    config = NTMConfig(1, 1, memory_size=4, word_size=3, controller=FeedForwardConfig(hidden_size=2))
    model = with_interface(config, interpolation_gate=-30, shift_weights=[-30, -30, 30], sharpening=10)
    _, _, trace = unroll(model, torch.zeros(6, 1, 1), model.initial_state(1), ["read_weights", "write_weights"])
    expected = torch.eye(4)[[1, 2, 3, 0, 1, 2]]
    torch.testing.assert_close(trace["read_weights"][:, 0, 0], expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(trace["write_weights"][:, 0, 0], expected, rtol=0, atol=1e-6)


@torch.no_grad()
def test_ntm_reads_a_word_one_step_after_it_is_written():
    config = NTMConfig(1, 1, memory_size=4, word_size=3, controller=FeedForwardConfig(hidden_size=2))
    model = with_interface(
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
def test_ntm_config_of_size_0_names_field_and_value(field):
    with pytest.raises(ConfigError, match=rf"NTMConfig\.{field} must be at least 1, got 0"):
        NTMConfig(**{"input_size": 3, "output_size": 2, field: 0})


@pytest.mark.parametrize("width", [2, 4])
def test_ntm_config_of_even_shift_width_names_field_and_value(width):
    with pytest.raises(ConfigError, match=rf"NTMConfig\.shift_width must be odd, got {width}"):
        NTMConfig(3, 2, shift_width=width)
