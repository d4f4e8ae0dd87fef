"""The law that ONNX graphs agree with torch, over every option of the table of models, at two sizes of memory."""

import numpy as np
import pytest
import torch

from models.artefact import ServedStep
from models.contract import schemas
from models.manifest import Manifest
from models.registry import config_values
from models.state import flatten
from tests.models.catalogue import CATALOGUE, KINDS, make, random_inputs
from tests.models.covering import covered, covering
from tests.training.graphs import initial_leaves, next_leaves, run_graph, session
from training.export import TOLERANCE, build_graph, step_differences

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("operators_parsed_once")]

STEPS, BATCH = 12, 3


def manifest_of(name, model):
    state, trace = schemas(model)
    config = config_values(CATALOGUE[name])
    return Manifest(KINDS[type(CATALOGUE[name])], config, {}, model.input_size, model.output_size, 1, state, trace, "")


def assert_axes_are_open(graph, model):
    """The axes of the batch, and those of memory locations, are dynamic under these names in every tensor."""
    sizes = (model.memory_size, model.memory_size + 1) if model.memory_size else (None, None)
    (state, trace), (larger_state, larger_trace) = (schemas(model, size) for size in sizes)
    shapes = {"inputs": ([model.input_size],) * 2, "outputs": ([model.output_size],) * 2}
    shapes |= {f"{side}.{name}": (state[name], larger_state[name]) for side in ("state", "next") for name in state}
    shapes |= {f"trace.{name}": (trace[name], larger_trace[name]) for name in trace}
    for entry in (*graph.get_inputs(), *graph.get_outputs()):
        here, larger = shapes[entry.name]
        assert entry.shape[1:] == [size if size == other else "slots" for size, other in zip(here, larger, strict=True)]
        assert entry.shape[0] == "batch"


def test_covering_models_are_few_and_have_every_option():
    names = covering()
    have = {name: covered(name) for name in CATALOGUE}
    assert set().union(*(have[name] for name in names)) == set().union(*have.values())
    assert all(have[name] - set().union(*(have[other] for other in names if other != name)) for name in names)
    assert {"dnc.masking=True", "ntm.order=in-turn", "lstm.peepholes=True", "rnn with stack"} <= set().union(
        *have.values()
    )


@pytest.mark.parametrize("name", covering())
@torch.no_grad()
def test_graph_steps_equal_torch_at_any_memory_size(name):
    model = make(name)
    graph = session(build_graph(model, manifest_of(name, model)).SerializeToString())
    assert_axes_are_open(graph, model)
    step, generator = ServedStep(model), torch.Generator().manual_seed(0)
    for slots in (model.memory_size, model.memory_size + 2) if model.memory_size else (None,):
        leaves = initial_leaves(graph, BATCH, slots)
        for leaf, expected in flatten(model.initial_state(BATCH, slots)).items():
            np.testing.assert_allclose(leaves[leaf], expected, rtol=0, atol=1e-6, err_msg=leaf)
        for inputs in random_inputs(model, STEPS, BATCH):
            outputs = run_graph(graph, inputs.numpy(), leaves)
            state = [torch.from_numpy(leaf) for leaf in leaves.values()]
            differences = step_differences(list(outputs.values()), step, inputs, state, generator)
            assert differences.max() <= TOLERANCE, list(outputs)[int(differences.max(1).argmax())]
            leaves = next_leaves(outputs)
