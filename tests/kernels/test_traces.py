"""The traces of the fused kernels: they explain a step, whoever computes its rows, and cost what is asked for."""

import numpy as np
import pytest

from kernels import plan
from models.contract import schemas
from tests.kernels.test_step import COVERED, LEAVES, fused_of, rows_of
from tests.models.catalogue import CATALOGUE, lived_in_state, make_from, random_inputs
from tests.models.identities import assert_traces_explain

WITH_HEADS = [name for name in COVERED if not name.startswith("rnn")]


def fused_and_names(name, rows):
    """Return the kernel of a model with a lived-in state in each slot, and the names of its traces in the kernels."""
    model = make_from(CATALOGUE[name])
    fused, state = fused_of(model, rows), lived_in_state(model, rows)
    for row in range(rows):
        fused.write(row, rows_of(state, row))
    return model, fused, sorted(schemas(model)[1].keys() - LEAVES)


def leaves_of(fused, rows):
    return {name: fused.leaf(name, range(rows)) for name in fused.shapes}


@pytest.mark.parametrize("name", WITH_HEADS)
def test_traces_of_a_fused_step_explain_it(name):
    model, fused, names = fused_and_names(name, 3)
    for inputs in random_inputs(model, 3, 3).numpy():
        before = leaves_of(fused, 3)
        _, traces = fused.step(range(3), inputs, names)
        after = leaves_of(fused, 3)
        trace = {leaf: before[leaf] if leaf in fused.used_before else after[leaf] for leaf in LEAVES & after.keys()}
        assert_traces_explain(model.config, before, after, trace | traces, atol=1e-5)


@pytest.mark.parametrize("name", ["dnc-2-read-3-write-heads", "dnc-programs-improved", "ntm-before-controller-stack"])
def test_traces_have_the_same_bits_on_any_number_of_threads(name, monkeypatch):
    monkeypatch.setattr(plan, "LEAST_PER_THREAD", 1)
    model, one, names = fused_and_names(name, 50)
    three = fused_of(model, 50, threads=3)
    for row in range(50):
        three.write(row, one.read(row))
    inputs = random_inputs(model, 1, 50)[0].numpy()
    (_, alone), (_, shared) = one.step(range(50), inputs, names), three.step(range(50), inputs, names)
    for each in names:
        assert np.array_equal(alone[each], shared[each]), each


@pytest.mark.parametrize(
    ("name", "asked", "left"),
    [
        ("dnc", ["write_keys", "write_masks"], {"controls"}),
        ("dnc", ["retention", "read_strengths"], {"retention", "controls"}),
        ("ntm", ["gated_weights"], {"gated_weights"}),
        ("ntm-lasagne", ["add_vectors", "keys"], {"controls_before", "controls"}),
        ("ntm-programs", ["program_weights"], {"program_weights"}),
        ("ntm", [], set()),
    ],
)
def test_step_leaves_only_what_its_traces_need(name, asked, left):
    _, fused, _ = fused_and_names(name, 2)
    assert set(fused._traces.allocate(2, asked).arrays) == left


def test_trace_that_a_model_does_not_have_is_refused():
    model, fused, _ = fused_and_names("dnc", 1)
    with pytest.raises(KeyError, match="shifted_weights"):
        fused.step([0], random_inputs(model, 1, 1)[0].numpy(), ["shifted_weights"])
