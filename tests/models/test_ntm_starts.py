"""The first states of an NTM, against a naive version and in situations made by hand."""

import numpy as np
import pytest
import torch

from models.cells import GRUConfig
from models.ntm import NTM, NTMConfig
from models.state import flatten
from tests.models import naive
from tests.models.catalogue import CATALOGUE, GRU, make

NTMS = [name for name in CATALOGUE if name.startswith("ntm")]
DRAWN = {"memory_start": "random", "weights_start": "random", "reads_start": "random", "controller_start": "random"}
LEARNED = dict.fromkeys(DRAWN, "learned")


def an_ntm(**options):
    return NTM(NTMConfig(3, 2, 6, 4, read_heads=2, controller=GRU, **options))


def naive_start(config, weights, slots, controller):
    """Return the state of one row before the first step; controller: leaves of that shape."""
    reads, heads = config.read_heads, config.read_heads + config.write_heads

    def start(name, otherwise):
        return weights.get(f"starts.{name}.values", otherwise)

    drawn = start("memory", np.full((config.memory_size, config.word_size), 1e-6))
    weightings = np.zeros((heads, slots))
    for head in range(heads):
        if config.weights_start == "one-hot":
            weightings[head, 0] = 1
        elif config.weights_start == "uniform":
            weightings[head] = 1 / slots
        elif config.weights_start != "zero":
            softened = naive.softmax(weights["starts.weights.values"][head])
            for n in range(min(slots, config.memory_size)):
                weightings[head, n] = softened[n]
    state = {
        "controller": {
            name: start(f"controller_{name.replace('.', '_')}", np.zeros(leaf.shape))
            for name, leaf in controller.items()
        },
        "memory": np.array([drawn[n % config.memory_size] for n in range(slots)]),
        "read_weights": weightings[:reads],
        "write_weights": weightings[reads:],
        "read_vectors": start("reads", np.full((reads, config.word_size), 1e-6)),
    }
    if config.order == "before-controller":
        state["hidden"] = start("hidden", np.zeros(weights["interface.weight"].shape[1]))
    return state


@pytest.mark.parametrize("slots", [None, 1, 2, 4, 9, 40])
@pytest.mark.parametrize("name", NTMS)
@torch.no_grad()
def test_ntm_start_of_any_size_agrees_with_the_naive_version(name, slots):
    model = make(name, torch.float64)
    leaves = flatten(model.initial_state(3, slots))
    for row in range(3):
        controller = naive.row_of(leaves, row)["controller"]
        expected = naive_start(model.config, naive.weights_of(model), slots or model.memory_size, controller)
        naive.assert_state_near(leaves, row, expected, atol=1e-15)


def test_ntm_start_that_is_random_is_saved_and_never_trained():
    model = an_ntm(**DRAWN, order="before-controller")
    drawn = {f"starts.{name}.values" for name in ("memory", "weights", "reads", "controller_h", "hidden")}
    assert drawn == {name for name in model.state_dict() if name.startswith("starts")}
    assert not any(name.startswith("starts") for name, _ in model.named_parameters())


def test_ntm_start_that_is_learned_is_saved_and_trained():
    model = an_ntm(**LEARNED, order="before-controller")
    drawn = {f"starts.{name}.values" for name in ("memory", "weights", "reads", "controller_h", "hidden")}
    assert drawn == {name for name in model.state_dict() if name.startswith("starts")}
    assert drawn == {name for name, _ in model.named_parameters() if name.startswith("starts")}


@pytest.mark.parametrize("options", [{}, {"weights_start": "zero"}, {"weights_start": "uniform"}])
def test_ntm_start_that_is_constant_adds_no_weights(options):
    assert not any(name.startswith("starts") for name in an_ntm(**options).state_dict())


@pytest.mark.parametrize("options", [DRAWN, LEARNED], ids=["random", "learned"])
def test_ntm_starts_of_two_models_differ(options):
    model, other = an_ntm(**options, order="before-controller"), an_ntm(**options, order="before-controller")
    first, again = flatten(model.initial_state(2)), flatten(model.initial_state(2))
    for name, leaf in flatten(other.initial_state(2)).items():
        assert torch.equal(first[name], again[name])
        assert not torch.equal(first[name], leaf), name


def test_ntm_start_is_loaded_with_the_weights():
    model, other = an_ntm(**DRAWN), an_ntm(**DRAWN)
    other.load_state_dict(model.state_dict())
    theirs = flatten(other.initial_state(2))
    assert all(torch.equal(leaf, theirs[name]) for name, leaf in flatten(model.initial_state(2)).items())


def test_ntm_start_overwritten_leaves_the_next_start_unchanged():
    model = an_ntm(**DRAWN, order="before-controller")
    expected = {name: leaf.clone() for name, leaf in flatten(model.initial_state(1)).items()}
    for leaf in flatten(model.initial_state(1)).values():
        leaf.fill_(9)
    assert all(torch.equal(leaf, expected[name]) for name, leaf in flatten(model.initial_state(1)).items())


@torch.no_grad()
def test_ntm_start_of_larger_memory_repeats_words_without_weight():
    model = an_ntm(memory_start="random", weights_start="random")
    state, own = model.initial_state(1, memory_size=13), model.initial_state(1)
    assert torch.equal(state.memory[:, :6], own.memory)
    assert torch.equal(state.memory[:, 6:], torch.cat([own.memory, own.memory[:, :1]], 1))
    assert torch.equal(state.read_weights[..., :6], own.read_weights)
    assert (state.read_weights[..., 6:] == 0).all()
    assert (state.write_weights[..., 6:] == 0).all()


@torch.no_grad()
def test_ntm_start_of_weights_has_the_read_heads_first():
    model = an_ntm(weights_start="learned")
    model.starts["weights"].values.copy_(100 * torch.eye(6)[[4, 1, 3]])
    state = model.initial_state(1)
    torch.testing.assert_close(state.read_weights[0], torch.eye(6)[[4, 1]])
    torch.testing.assert_close(state.write_weights[0], torch.eye(6)[[3]])


def test_ntm_start_uniform_or_zero_is_equal_everywhere():
    for slots in (6, 11):
        uniform, zero = (an_ntm(weights_start=name).initial_state(2, slots) for name in ("uniform", "zero"))
        torch.testing.assert_close(uniform.read_weights, torch.full((2, 2, slots), 1 / slots))
        torch.testing.assert_close(uniform.write_weights, torch.full((2, 1, slots), 1 / slots))
        assert not zero.read_weights.any()
        assert not zero.write_weights.any()


def test_ntm_start_drawn_is_within_its_spread():
    options = DRAWN | {"order": "before-controller", "controller": GRUConfig(hidden_size=500)}
    starts = NTM(NTMConfig(3, 2, 60, 40, read_heads=9, write_heads=9, **options)).starts
    assert 0.099 < starts["memory"].values.abs().max() <= 0.1
    assert starts["weights"].values.std().item() == pytest.approx(1, abs=0.1)
    assert starts["reads"].values.std().item() == pytest.approx(0.01, abs=0.002)
    for name in ("controller_h", "hidden"):
        assert starts[name].values.std().item() == pytest.approx(0.05, abs=0.01)


def test_ntm_start_learned_passes_its_gradient_row_by_row():
    model = an_ntm(**LEARNED)
    model.initial_state(3, memory_size=8).memory.sum().backward()
    expected = torch.tensor([6.0, 6, 3, 3, 3, 3]).unsqueeze(1).expand(6, 4)
    assert torch.equal(model.starts["memory"].values.grad, expected)
