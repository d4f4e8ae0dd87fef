"""The DNC against a naive version of Graves et al., Nature 538 (2016), Methods."""

import numpy as np
import pytest
import torch

from models.cells import FeedForwardConfig, LSTMConfig
from models.config import ConfigError
from models.contract import unroll
from models.dnc import DNC, DNCConfig
from models.state import flatten
from tests.models import naive
from tests.models.catalogue import CATALOGUE, lived_in_state, make, make_from, random_inputs, with_interface
from tests.models.identities import assert_traces_explain

DNCS = [name for name in CATALOGUE if name.startswith("dnc")]


def naive_step(config, weights, x, state):
    """Return outputs, next state and trace of one row."""
    slots, reads, writes = range(len(state["memory"])), config.read_heads, config.write_heads
    bound = config.clip or np.inf

    h, controller = naive.cell(
        config.controller, weights, np.concatenate([x, state["read_vectors"].ravel()]), state["controller"]
    )
    h, controller = np.clip(h, -bound, bound), {name: np.clip(leaf, -bound, bound) for name, leaf in controller.items()}
    xi = naive_interface(config, *naive.interface(config, weights, h))

    usage, retention, emptied = np.zeros(len(slots)), np.zeros(len(slots)), state["memory"].copy()
    for n in slots:
        u, w = state["usage"][n], 1 - np.prod([1 - state["write_weights"][v][n] for v in range(writes)])
        retention[n] = np.prod([1 - xi["free_gates"][r] * state["read_weights"][r][n] for r in range(reads)])
        usage[n] = (u + w - u * w) * retention[n]
        emptied[n] = emptied[n] * (retention[n] if config.deallocation else 1)

    allocations, write_content, write_weights, promised = [], [], [], usage
    for v in range(writes):
        a, ga, gw = naive_allocation(promised), xi["allocation_gate"][v], xi["write_gate"][v]
        mask, key = xi["write_masks"][v], xi["write_keys"][v]
        beta = naive.scaled(config, xi["write_strengths"][v], memory=slots)
        c = naive.content(state["memory"] * mask, key * mask, beta)
        allocations.append(a)
        write_content.append(c)
        write_weights.append(gw * (ga * a + (1 - ga) * c))
        promised = promised + (1 - promised) * ga * gw * a
    memory = naive.write(emptied, write_weights, xi["erase_vectors"], xi["write_vectors"])

    links = naive_links(config, state, write_weights)
    read_content, walks, read_weights = [], [], []
    for r in range(reads):
        mask, key = xi["read_masks"][r], xi["read_keys"][r]
        w = naive.content(memory * mask, key * mask, naive.scaled(config, xi["read_strengths"][r], memory))
        read_content.append(w)
        if config.links != "none":
            walks.append(naive_walk(config, xi, r, links, state["read_weights"][r]))
            modes = xi["read_modes"][r]
            w = modes[2 * writes] * w + modes[:writes] @ walks[r][1] + modes[writes : 2 * writes] @ walks[r][0]
        read_weights.append(w)
    read_vectors = np.array([naive.read(memory, w) for w in read_weights])

    outputs = naive.linear(weights, "output", np.concatenate([h, read_vectors.ravel()]))
    next_state = {
        "controller": controller,
        "memory": memory,
        "read_weights": np.array(read_weights),
        "write_weights": np.array(write_weights),
        "read_vectors": read_vectors,
        "usage": usage,
    }
    masks = ("read_masks", "write_masks")
    trace = {name: values for name, values in xi.items() if config.masking or name not in masks}
    trace |= {name: next_state[name] for name in ("read_weights", "write_weights", "read_vectors", "usage")}
    trace |= {"retention": retention, "allocation_weights": np.array(allocations)}
    trace |= {"write_content_weights": np.array(write_content), "read_content_weights": np.array(read_content)}
    if walks:
        trace |= {"forward_weights": np.array(walks)[:, 0], "backward_weights": np.array(walks)[:, 1]}
    return np.clip(outputs, -bound, bound), next_state | links, trace


def naive_interface(config, vector, shares):
    reads, writes, word = config.read_heads, config.write_heads, config.word_size
    parts = [("read_keys", (reads, word)), ("read_strengths", (reads,))]
    parts += [("write_keys", (writes, word)), ("write_strengths", (writes,))]
    parts += [("erase_vectors", (writes, word)), ("write_vectors", (writes, word)), ("free_gates", (reads,))]
    parts += [("allocation_gate", (writes,)), ("write_gate", (writes,))]
    parts += [("read_modes", (reads, 2 * writes + 1))] if config.links != "none" else []
    parts += [("read_masks", (reads, word)), ("write_masks", (writes, word))] if config.masking else []
    sharpness = ("forward_sharpness", "backward_sharpness") if config.link_sharpening else ()
    xi = naive.cut(vector, [*parts, *((name, (reads, writes)) for name in sharpness)])

    for name in ("read_strengths", "write_strengths"):
        xi[name] = naive.softplus(xi[name]) + (config.strength == "oneplus")
    for name in ("erase_vectors", "free_gates", "allocation_gate", "write_gate"):
        xi[name] = naive.sigmoid(xi[name])
    for name, heads in (("read_masks", reads), ("write_masks", writes)):
        xi[name] = naive.sigmoid(xi[name]) if config.masking else np.ones((heads, word))
    for name in sharpness:
        xi[name] = 1 + naive.softplus(xi[name])
    if config.links != "none":
        xi["read_modes"] = np.array([naive.softmax(modes) for modes in xi["read_modes"]])
    return xi | shares


def naive_links(config, state, write_weights):
    """Return the leaves of the next state that hold the order of writing."""
    if config.links == "none":
        return {}
    links = {name: leaf.copy() for name, leaf in state.items() if name in ("link", "link_columns")}
    precedence = np.zeros_like(state["precedence_weights"])
    for v, w in enumerate(write_weights):
        p = state["precedence_weights"][v]
        for i in range(len(w)):
            if config.links == "sparse":
                row = naive_sparse_row(i, state["link"][v, i], state["link_columns"][v, i], p, w)
                links["link"][v, i], links["link_columns"][v, i] = row
            else:
                links["link"][v, i] = [naive_link(i, j, state["link"][v, i, j], p, w) for j in range(len(w))]
        precedence[v] = (1 - sum(w)) * p + w
    return links | {"precedence_weights": precedence}


def naive_link(i, j, before, precedence, w):
    """Return how far location i was written right after location j; before: the same at the previous step."""
    return 0 if i == j else (1 - w[i] - w[j]) * before + w[i] * precedence[j]


def naive_sparse_row(i, entries, columns, precedence, w):
    """Return the largest entries of row i, as many as before, and their columns."""
    known = dict(zip((int(column) for column in columns), entries, strict=True))
    latest = sorted(range(len(w)), key=lambda j: -precedence[j])[: len(columns)]
    looked_at = [*known, *(j for j in latest if j not in known)]
    values = [naive_link(i, j, known.get(j, 0), precedence, w) for j in looked_at]
    best = sorted(zip(values, looked_at, strict=True), key=lambda candidate: -candidate[0])[: len(columns)]
    return np.array(best).T


def naive_walk(config, xi, r, links, before):
    """Return read head r's weightings forward and backward from its weighting `before`, by each write head's links."""
    slots, found = range(len(before)), []
    for v in range(config.write_heads):
        columns = links["link_columns"][v] if config.links == "sparse" else [slots] * len(slots)
        forward, backward = np.zeros(len(slots)), np.zeros(len(slots))
        for i in slots:
            for entry, j in zip(links["link"][v][i], columns[i], strict=True):
                forward[i] += entry * before[int(j)]
                backward[int(j)] += entry * before[i]
        if config.link_sharpening:
            forward = naive_sharpened(forward, xi["forward_sharpness"][r, v])
            backward = naive_sharpened(backward, xi["backward_sharpness"][r, v])
        found.append((forward, backward))
    return np.swapaxes(found, 0, 1)


def naive_sharpened(weighting, sharpness):
    powers = (weighting + 1e-6) ** sharpness
    return powers / sum(powers)


def naive_allocation(usage):
    u = 1e-6 + (1 - 1e-6) * usage
    allocation, before = np.zeros(len(u)), 1.0
    for slot in sorted(range(len(u)), key=lambda n: (-(1 - u[n]), n)):
        allocation[slot] = (1 - u[slot]) * before
        before *= u[slot]
    return allocation


@pytest.mark.parametrize("start", ["fresh", "lived-in"])
@pytest.mark.parametrize("name", DNCS)
@torch.no_grad()
def test_dnc_step_agrees_with_the_naive_version(name, start):
    model = make(name, torch.float64)
    state = model.initial_state(2) if start == "fresh" else lived_in_state(model, 2)
    naive.assert_steps_near(model, state, random_inputs(model, 10, 2), naive_step)


@pytest.mark.parametrize("name", DNCS)
@torch.no_grad()
def test_dnc_step_at_another_memory_size_agrees_with_naive(name):
    model = make(name, torch.float64)
    _, state, _ = unroll(model, random_inputs(model, 6, 2), model.initial_state(2, memory_size=9))
    naive.assert_steps_near(model, state, random_inputs(model, 6, 2), naive_step)


@pytest.mark.parametrize("size", [None, 9])
@pytest.mark.parametrize("name", DNCS)
@torch.no_grad()
def test_dnc_state_follows_from_the_traces(name, size):
    model = make(name, torch.float64)
    _, state, _ = unroll(model, random_inputs(model, 6, 2), model.initial_state(2, size))
    for inputs in random_inputs(model, 3, 2):
        before = naive.arrays(flatten(state))
        _, state, trace = model.step(inputs, state)
        assert_traces_explain(model.config, before, naive.arrays(flatten(state)), naive.arrays(trace))


def test_dnc_state_before_the_first_step_is_zero():
    state = DNC(DNCConfig(3, 2)).initial_state(2)
    assert all((leaf == 0).all() for leaf in flatten(state).values())


def test_dnc_controller_sees_the_previous_read_vectors():
    model = make("dnc-3-read-heads", torch.float64)
    state = lived_in_state(model, 2)
    for head in range(3):
        other = state.read_vectors.clone()
        other[:, head] += 1
        _, changed, _ = model.step(torch.zeros(2, 3, dtype=torch.float64), state._replace(read_vectors=other))
        _, same, _ = model.step(torch.zeros(2, 3, dtype=torch.float64), state)
        assert (changed.controller.h != same.controller.h).any()


@torch.no_grad()
def test_dnc_clip_bounds_controller_state_and_outputs():
    model = make_from(DNCConfig(3, 2, 4, 3, controller=LSTMConfig(hidden_size=5), clip=0.1), spread=2)
    outputs, state, _ = unroll(model, random_inputs(model, 5, 3), model.initial_state(3))
    for values in (outputs, state.controller.h, state.controller.c):
        assert values.abs().max() == pytest.approx(0.1)


@torch.no_grad()
def test_dnc_without_clip_is_not_bounded():
    config = DNCConfig(3, 2, 4, 3, controller=FeedForwardConfig(hidden_size=5), clip=0)
    model = make_from(config, spread=30)
    outputs, _, _ = unroll(model, random_inputs(model, 5, 3), model.initial_state(3))
    assert outputs.abs().max() > 20


@torch.no_grad()
def test_dnc_with_open_allocation_gate_writes_new_locations():
    config = DNCConfig(1, 1, 5, 3, controller=FeedForwardConfig(hidden_size=2))
    model = with_interface(config, allocation_gate=20, write_gate=20, free_gates=-20)
    _, _, trace = unroll(model, torch.zeros(5, 1, 1), model.initial_state(1), ["write_weights"])
    weights, slots = trace["write_weights"][:, 0, 0].max(1)
    assert sorted(slots.tolist()) == [0, 1, 2, 3, 4]
    assert (weights > 0.999).all()


@torch.no_grad()
def test_dnc_second_write_head_counts_the_first_ones_allocation_used():
    config = DNCConfig(1, 1, memory_size=1, word_size=2, write_heads=2, controller=FeedForwardConfig(hidden_size=2))
    model = with_interface(config, allocation_gate=0, write_gate=0)  # both gates are a half
    _, _, trace = model.step(torch.zeros(1, 1), model.initial_state(1))
    torch.testing.assert_close(trace["allocation_weights"].flatten(), torch.tensor([1, 1 - 0.5 * 0.5]))


@torch.no_grad()
def test_dnc_with_open_free_gate_writes_there_again():
    config = DNCConfig(1, 1, 5, 3, controller=FeedForwardConfig(hidden_size=2))
    finds_it = {"write_vectors": 1, "read_keys": 1, "read_strengths": 500, "read_modes": [-20, -20, 20]}
    model = with_interface(config, allocation_gate=20, write_gate=20, free_gates=20, **finds_it)
    _, _, trace = unroll(model, torch.zeros(4, 1, 1), model.initial_state(1), ["write_weights"])
    torch.testing.assert_close(trace["write_weights"][:, 0, 0, 0], torch.ones(4), rtol=0, atol=1e-2)


@torch.no_grad()
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_dnc_with_a_directional_mode_reads_in_writing_order(backward):
    config = DNCConfig(1, 1, 6, 3, controller=FeedForwardConfig(hidden_size=2))
    writer = with_interface(config, allocation_gate=20, write_gate=20, free_gates=-20)
    reader = with_interface(config, write_gate=-20, read_modes=[20, -20, -20] if backward else [-20, 20, -20])
    _, state, written = unroll(writer, torch.zeros(5, 1, 1), writer.initial_state(1), ["write_weights"])
    order = written["write_weights"].flip(0) if backward else written["write_weights"]
    _, _, read = unroll(reader, torch.zeros(4, 1, 1), state._replace(read_weights=order[0]), ["read_weights"])
    torch.testing.assert_close(read["read_weights"], order[1:], rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    "field", ["input_size", "output_size", "memory_size", "word_size", "read_heads", "write_heads"]
)
def test_dnc_config_of_size_0_names_field_and_value(field):
    with pytest.raises(ConfigError, match=rf"DNCConfig\.{field} must be at least 1, got 0"):
        DNCConfig(**{"input_size": 3, "output_size": 2, field: 0})


def test_dnc_config_of_negative_clip_names_field_and_value():
    with pytest.raises(ConfigError, match=r"DNCConfig\.clip must be at least 0, got -1"):
        DNCConfig(3, 2, clip=-1)
