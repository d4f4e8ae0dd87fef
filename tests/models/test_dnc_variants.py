"""The options of the DNC in situations made by hand."""

import dataclasses
import itertools

import pytest
import torch

from models.cells import FeedForwardConfig
from models.config import ConfigError
from models.contract import unroll
from models.dnc import DNC, DNCConfig
from models.registry import model_config
from models.state import flatten
from tests.models import naive
from tests.models.catalogue import LSTM, lived_in_state, make, make_from, random_inputs, with_interface
from tests.models.test_addressing_variants import as_matrix
from tests.models.test_dnc import naive_step

TINY = DNCConfig(1, 1, memory_size=5, word_size=3, controller=FeedForwardConfig(hidden_size=2))
"""The config of the models whose interface is set, in these situations."""

BY_CONTENT = [-30.0, -30.0, 30.0]
FORWARD = [-30.0, 30.0, -30.0]
BACKWARD = [30.0, -30.0, -30.0]


def tiny(**options):
    return dataclasses.replace(TINY, **options)


def stepped(model, **leaves):
    """Return state and trace one step after a fresh state with other leaves, all of one row."""
    state = model.initial_state(1)._replace(**{name: torch.as_tensor(leaf)[None] for name, leaf in leaves.items()})
    _, state, trace = model.step(torch.zeros(1, 1), state)
    return state, trace


@pytest.mark.parametrize("links", ["dense", "sparse", "none"])
@pytest.mark.parametrize(("masking", "deallocation", "sharpening"), [*itertools.product([False, True], repeat=3)])
@torch.no_grad()
def test_dnc_options_together_agree_with_the_naive_version(masking, deallocation, sharpening, links):
    options = {"masking": masking, "deallocation": deallocation, "link_sharpening": sharpening and links != "none"}
    model = make_from(DNCConfig(3, 2, 6, 4, 2, 2, LSTM, links=links, links_per_slot=3, **options), torch.float64)
    naive.assert_steps_near(model, lived_in_state(model, 2), random_inputs(model, 6, 2), naive_step)


# Masking


@torch.no_grad()
def test_dnc_with_masked_keys_matches_the_rest_only():
    memory = torch.tensor([[1.0, -1, 9], [1, 1, -9], [-1, 1, 1], [-1, -1, 1], [-1, 1, -1]])
    at = {"read_keys": [1.0, 1, 1], "read_strengths": 500, "write_keys": [-1.0, 1, 1], "write_strengths": 500}
    masks = {"read_masks": [30.0, 30, -30], "write_masks": [-30.0, -30, 30]}
    model = with_interface(tiny(masking=True), **at, **masks, allocation_gate=-30, write_gate=30, read_modes=BY_CONTENT)
    _, trace = stepped(model, memory=memory)
    expected_writes = torch.tensor([1, 0, 1, 1, 0]) / 3
    torch.testing.assert_close(trace["write_weights"][0, 0], expected_writes, rtol=0, atol=1e-3)
    model = with_interface(tiny(masking=True), **at, **masks, write_gate=-30, read_modes=BY_CONTENT)
    _, trace = stepped(model, memory=memory)
    torch.testing.assert_close(trace["read_weights"][0, 0], torch.eye(5)[1], rtol=0, atol=1e-6)


# De-allocation


@torch.no_grad()
@pytest.mark.parametrize("deallocation", [False, True])
def test_dnc_empties_a_freed_location_only_with_deallocation(deallocation):
    model = with_interface(tiny(deallocation=deallocation), free_gates=30, write_gate=-30)
    state, _ = stepped(model, memory=torch.ones(5, 3), read_weights=torch.eye(5)[[2]])
    kept = torch.tensor([1.0, 1, 0 if deallocation else 1, 1, 1])
    torch.testing.assert_close(state.memory[0], kept.unsqueeze(1).expand(5, 3), rtol=0, atol=1e-6)


@torch.no_grad()
def test_dnc_write_by_content_finds_the_location_being_emptied():
    finds_it = {"write_keys": [0.0, 1, 0], "write_strengths": 500, "allocation_gate": -30, "write_gate": 30}
    model = with_interface(tiny(deallocation=True), **finds_it, free_gates=30, erase_vectors=-30, write_vectors=7)
    memory = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, 5, 0], [1, 0, 1], [0, 0, 0]])
    state, trace = stepped(model, memory=memory, read_weights=torch.eye(5)[[2]])
    torch.testing.assert_close(trace["write_weights"][0, 0], torch.eye(5)[2], rtol=0, atol=1e-6)
    torch.testing.assert_close(state.memory[0, 2], torch.full((3,), 7.0), rtol=0, atol=1e-5)


# Sharper links


def read_along(modes, **sharpness):
    """Return the read weighting of a head that read location 0 before, with weak links to and from it."""
    link = torch.zeros(1, 5, 5)
    link[0, :, 0] = torch.tensor([0, 0.3, 0.2, 0, 0])
    link[0, 0, :] = torch.tensor([0, 0, 0.1, 0.3, 0])
    model = with_interface(tiny(link_sharpening=True), write_gate=-30, read_modes=modes, **sharpness)
    _, trace = stepped(model, link=link, read_weights=torch.eye(5)[[0]])
    return trace["read_weights"][0, 0]


@torch.no_grad()
@pytest.mark.parametrize(
    ("modes", "way", "expected"),
    [(FORWARD, "forward", [0, 0.6, 0.4, 0, 0]), (BACKWARD, "backward", [0, 0, 0.25, 0.75, 0])],
    ids=["forward", "backward"],
)
def test_dnc_with_sharpened_links_reads_the_strongest_alone(modes, way, expected):
    blunt = read_along(modes, forward_sharpness=-30, backward_sharpness=-30)
    torch.testing.assert_close(blunt, torch.tensor(expected), rtol=0, atol=1e-4)
    sharp = read_along(modes, **{"forward_sharpness": -30, "backward_sharpness": -30, f"{way}_sharpness": 100})
    torch.testing.assert_close(sharp, torch.eye(5)[torch.tensor(expected).argmax()], rtol=0, atol=1e-6)


@torch.no_grad()
def test_dnc_without_sharpening_reads_weak_links_weakly():
    link = torch.zeros(1, 5, 5)
    link[0, 1, 0] = 0.3
    model = with_interface(TINY, write_gate=-30, read_modes=FORWARD)
    _, trace = stepped(model, link=link, read_weights=torch.eye(5)[[0]])
    torch.testing.assert_close(trace["read_weights"][0, 0], 0.3 * torch.eye(5)[1], rtol=0, atol=1e-6)


# Without links


@torch.no_grad()
def test_dnc_without_links_reads_by_content_only():
    model = with_interface(tiny(links="none"), read_keys=[0.0, 1, 0], read_strengths=500, write_gate=-30)
    memory = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, 5, 0], [1, 0, 1], [0, 0, 0]])
    state, trace = stepped(model, memory=memory, read_weights=torch.eye(5)[[3]])
    torch.testing.assert_close(trace["read_weights"][0, 0], torch.eye(5)[2], rtol=0, atol=1e-6)
    torch.testing.assert_close(state.read_vectors[0, 0], torch.tensor([0, 5.0, 0]))


def test_dnc_without_links_has_neither_their_modes_nor_their_leaves():
    model = with_interface(tiny(links="none"))
    for state in (model.initial_state(1), stepped(model)[0]):
        assert (state.link, state.link_columns, state.precedence_weights) == (None, None, None)
        assert "link" not in flatten(state)
    assert "read_modes" not in model.interface.parts
    assert "read_modes" not in stepped(model)[1]


def test_dnc_with_dense_links_has_no_columns():
    state = lived_in_state(make("dnc"), 1)
    assert state.link_columns is None
    assert "link_columns" not in flatten(state)


# Sparse links


def test_dnc_sparse_links_begin_in_the_first_columns():
    state = make("dnc-sparse-links-improved").initial_state(2)
    assert state.link.shape == state.link_columns.shape == (2, 2, 7, 3)
    assert (state.link == 0).all()
    assert torch.equal(state.link_columns, torch.tensor([0.0, 1, 2]).expand(2, 2, 7, 3))


@torch.no_grad()
def test_dnc_sparse_columns_stay_whole_and_distinct_in_rows():
    model = make("dnc-sparse-links-improved")
    state = model.initial_state(3)
    for inputs in random_inputs(model, 15, 3):
        _, state, _ = model.step(inputs, state)
        columns = state.link_columns
        assert torch.equal(columns, columns.round())
        assert columns.min() >= 0
        assert columns.max() < 7
        assert (columns.sort(3).values.diff(dim=3) > 0).all()


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"masking": True, "deallocation": True, "link_sharpening": True}])
def test_dnc_with_all_sparse_links_equals_the_dense_dnc(options):
    config = DNCConfig(3, 2, 6, 4, 2, 2, LSTM, links="sparse", links_per_slot=6, **options)
    sparse = make_from(config, torch.float64)
    dense = make_from(dataclasses.replace(config, links="dense"), torch.float64)
    dense.load_state_dict(sparse.state_dict())
    inputs, states, traces = random_inputs(sparse, 12, 2), [], []
    for model in (sparse, dense):
        outputs, state, trace = unroll(model, inputs, model.initial_state(2), ["read_weights", "write_weights"])
        states.append(state)
        traces.append([outputs, *trace.values()])
    torch.testing.assert_close(*traces, rtol=0, atol=1e-9)
    whole = as_matrix(states[0].link, states[0].link_columns)
    assert whole.max() > 0.01
    torch.testing.assert_close(whole, states[1].link, rtol=0, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_dnc_with_one_link_per_row_reads_along_it(backward):
    config = tiny(links="sparse", links_per_slot=1)
    writer = with_interface(config, allocation_gate=20, write_gate=20, free_gates=-20)
    reader = with_interface(config, write_gate=-20, read_modes=BACKWARD if backward else FORWARD)
    _, state, written = unroll(writer, torch.zeros(5, 1, 1), writer.initial_state(1), ["write_weights"])
    order = written["write_weights"].flip(0) if backward else written["write_weights"]
    _, _, read = unroll(reader, torch.zeros(4, 1, 1), state._replace(read_weights=order[0]), ["read_weights"])
    torch.testing.assert_close(read["read_weights"], order[1:], rtol=0, atol=1e-3)


# Bypass dropout


def bypassing(share):
    """Return a model whose outputs are the controller's, 40 ones, plus the read vectors."""
    config = DNCConfig(
        1, 40, 3, 1, controller=FeedForwardConfig(hidden_size=40, activation="identity"), bypass_dropout=share
    )
    model = make_from(config, spread=0)
    with torch.no_grad():
        model.controller.layers[0].bias.fill_(1)
        model.output.weight.copy_(torch.cat([torch.eye(40), torch.ones(40, 1)], 1))
    return model


@torch.no_grad()
def test_dnc_bypass_dropout_in_training_drops_the_bypass_only():
    model = bypassing(0.75).train()
    state = model.initial_state(1)._replace(memory=torch.full((1, 3, 1), 5.0))
    drawn = [model.step(torch.zeros(1, 1), state) for _ in range(2)]
    for outputs, next_state, _ in drawn:
        bypass = outputs - next_state.read_vectors[0, 0]
        assert sorted(set(bypass[0].tolist())) == pytest.approx([0, 4])
        assert 1 <= (bypass > 1).sum() <= 20
        torch.testing.assert_close(next_state, drawn[0][1], rtol=0, atol=0)
    assert not torch.equal(drawn[0][0], drawn[1][0])


@torch.no_grad()
@pytest.mark.parametrize(("share", "train"), [(0.75, False), (0.0, True)])
def test_dnc_bypass_dropout_of_0_or_outside_training_drops_nothing(share, train):
    model = bypassing(share).train(train)
    outputs, _, _ = model.step(torch.zeros(1, 1), model.initial_state(1))
    assert torch.equal(outputs, torch.ones(1, 40))


# The size of the memory


@pytest.mark.parametrize("memory_size", [0, -4])
def test_dnc_state_without_locations_is_refused(memory_size):
    with pytest.raises(ConfigError, match=rf"DNCConfig\.memory_size must be at least 1, got {memory_size}"):
        make("dnc").initial_state(1, memory_size=memory_size)


def test_dnc_state_with_fewer_locations_than_links_is_refused():
    message = r"DNCConfig\.memory_size must be at least 3, links_per_slot, got 2"
    with pytest.raises(ConfigError, match=message):
        make("dnc-sparse-links-improved").initial_state(1, memory_size=2)
    assert make("dnc-sparse-links-improved").initial_state(1, memory_size=3).link.shape == (1, 2, 3, 3)
    assert make("dnc-no-links").initial_state(1, memory_size=1).memory.shape == (1, 1, 4)


# Options that cannot be


@pytest.mark.parametrize("share", [-0.1, 1.0, 1.5, float("nan")])
def test_dnc_config_of_bad_bypass_dropout_names_field_and_value(share):
    with pytest.raises(ConfigError, match=rf"DNCConfig\.bypass_dropout must be in \[0, 1\), got {share}"):
        DNCConfig(3, 2, bypass_dropout=share)


def test_dnc_config_without_links_per_slot_names_field_and_value():
    with pytest.raises(ConfigError, match=r"DNCConfig\.links_per_slot must be at least 1, got 0"):
        DNCConfig(3, 2, links_per_slot=0)


def test_dnc_config_of_more_links_than_locations_names_both():
    with pytest.raises(ConfigError, match=r"DNCConfig\.memory_size must be at least 8, links_per_slot, got 7"):
        DNCConfig(3, 2, memory_size=7, links="sparse")
    assert DNCConfig(3, 2, memory_size=7).links_per_slot == 8
    assert DNCConfig(3, 2, memory_size=8, links="sparse").memory_size == 8


def test_dnc_config_of_link_sharpening_without_links_is_refused():
    with pytest.raises(ConfigError, match=r"DNCConfig\.link_sharpening needs links, got links = 'none'"):
        DNCConfig(3, 2, link_sharpening=True, links="none")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("links", "ring", "one of 'dense', 'sparse', 'none'"),
        ("masking", 1, "bool"),
        ("deallocation", "yes", "bool"),
        ("link_sharpening", 0.5, "bool"),
        ("bypass_dropout", "0.1", "float"),
        ("links_per_slot", 2.0, "int"),
    ],
)
def test_dnc_option_of_another_type_names_key_value_and_expectation(name, value, expected):
    with pytest.raises(ConfigError) as error:
        model_config("dnc", {"input_size": 3, "output_size": 2, name: value})
    assert str(error.value) == f"model.{name}: expected {expected}, got {value!r}"


def test_dnc_interface_has_its_parts_in_this_order():
    """The order of a checkpoint's weights, row by row."""
    config = DNCConfig(3, 2, 6, 4, read_heads=2, write_heads=3, masking=True, link_sharpening=True)
    always = ["read_keys", "read_strengths", "write_keys", "write_strengths", "erase_vectors", "write_vectors"]
    always += ["free_gates", "allocation_gate", "write_gate"]
    options = {"read_modes": (2, 7), "read_masks": (2, 4), "write_masks": (3, 4)}
    options |= {"forward_sharpness": (2, 3), "backward_sharpness": (2, 3)}
    parts = DNC(config).interface.parts
    assert list(parts) == [*always, *options]
    assert {name: parts[name] for name in options} == options
