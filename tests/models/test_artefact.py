"""From a checkpoint on disk to a model that runs."""

import copy
import hashlib

import pytest
import torch
from safetensors.torch import save

from models.artefact import ServedStep, load
from models.config import ConfigError
from models.contract import schemas, unroll
from models.manifest import MANIFEST_FILE, WEIGHTS_FILE, Manifest, ManifestError
from models.registry import config_values
from models.state import flatten
from tests.models.catalogue import CATALOGUE, KINDS, lived_in_state, make, random_inputs


def a_checkpoint(directory, name, weights=None, **changes):
    """Write a checkpoint of a model of the table, with `changes` to its manifest and `weights` in place of its own."""
    model, config = make(name), CATALOGUE[name]
    data = save(model.state_dict()) if weights is None else weights
    state, trace = schemas(model)
    values = {
        "kind": KINDS[type(config)],
        "config": config_values(config),
        "task": {"name": "copy"},
        "input_size": model.input_size,
        "output_size": model.output_size,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "state": state,
        "trace": trace,
        "weights_sha256": hashlib.sha256(data).hexdigest(),
    }
    (directory / WEIGHTS_FILE).write_bytes(data)
    (directory / MANIFEST_FILE).write_text(Manifest(**values | changes).to_json())
    return model


def values_of(name, **changes):
    return config_values(CATALOGUE[name]) | changes


@pytest.mark.parametrize("name", ["dnc", "ntm", "rnn"])
def test_load_gives_the_model_that_was_saved(tmp_path, name):
    model = a_checkpoint(tmp_path, name)
    loaded, manifest = load(tmp_path)
    inputs, state = random_inputs(model, 1, 3)[0], lived_in_state(model, 3)
    assert torch.equal(loaded.step(inputs, state)[0], model.step(inputs, state)[0])
    assert manifest.kind == name
    assert not loaded.training


@pytest.mark.parametrize("name", ["dnc", "dnc-sparse-links", "ntm", "ntm-learned-starts"])
def test_loaded_model_takes_states_of_any_memory_size(tmp_path, name):
    model = a_checkpoint(tmp_path, name)
    loaded, _ = load(tmp_path)
    assert loaded.initial_state(1).memory.shape == (1, 6, 4)
    inputs, states = random_inputs(model, 3, 2), [each.initial_state(2, memory_size=17) for each in (model, loaded)]
    expected, ours = (unroll(each, inputs, state) for each, state in zip((model, loaded), states, strict=True))
    assert ours[1].memory.shape == (2, 17, 4)
    assert torch.equal(ours[0], expected[0])


def test_loaded_model_without_memory_refuses_a_memory_size(tmp_path):
    a_checkpoint(tmp_path, "rnn")
    loaded, _ = load(tmp_path)
    with pytest.raises(ConfigError, match="an RNN has no memory to resize"):
        loaded.initial_state(1, memory_size=17)


def test_loaded_model_has_the_start_drawn_with_it(tmp_path):
    model = a_checkpoint(tmp_path, "ntm-random-starts")
    loaded, _ = load(tmp_path)
    theirs = flatten(loaded.initial_state(2))
    assert all(torch.equal(leaf, theirs[name]) for name, leaf in flatten(model.initial_state(2)).items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": b"not safetensors"}, "model.safetensors: "),
        ({"config": values_of("dnc", word_size=5)}, r"model\.safetensors: (?s:.)*size mismatch"),
        ({"config": values_of("dnc", memory_size=0)}, "memory_size must be at least 1, got 0"),
        ({"config": values_of("dnc", memory_size=9)}, r"the manifest says state {.*}, but its config makes {.*}"),
        ({"state": {"memory": [9, 4]}}, r"the manifest says state {.*}, but its config makes {.*}"),
        ({"input_size": 9}, "the manifest says input_size 9, but its config makes 3"),
        ({"trace": {"usage": [7]}}, r"the manifest says trace {'usage': \[7\]}, but its config makes {'usage': \[6\]}"),
        ({"trace": {"moods": [6]}}, r"the manifest says trace {'moods': \[6\]}, but its config makes {}"),
        ({"kind": "gru"}, "model.kind: expected one of dnc, ntm, rnn, got 'gru'"),
        ({"weights_sha256": "0" * 64}, "but manifest.json says 0000"),
    ],
)
def test_load_of_files_that_make_no_model_says_why(tmp_path, changes, message):
    a_checkpoint(tmp_path, "dnc", **changes)
    with pytest.raises(ManifestError, match=message):
        load(tmp_path)


@pytest.mark.parametrize("name", ["dnc", "ntm", "rnn"])
def test_load_of_a_manifest_with_fewer_traces_keeps_it(tmp_path, name):
    fewer = {"dnc": {"usage": [6]}, "ntm": {"sharpening": [2]}, "rnn": {}}[name]
    a_checkpoint(tmp_path, name, trace=fewer)
    model, manifest = load(tmp_path)
    assert manifest.trace == fewer
    assert schemas(model)[1].items() >= fewer.items()


def test_served_step_gives_the_named_traces_in_that_order():
    model = make("dnc")
    inputs, state = random_inputs(model, 1, 3)[0], lived_in_state(model, 3)
    *_, first, second = ServedStep(model, ["write_gate", "usage"])(inputs, *flatten(state).values())
    _, _, trace = model.step(inputs, state)
    assert torch.equal(first, trace["write_gate"])
    assert torch.equal(second, trace["usage"])


@pytest.mark.parametrize(
    "name",
    [
        "dnc-sigmoid",
        "dnc-2-read-3-write-heads",
        "dnc-no-links",
        "dnc-sparse-links",
        "dnc-tokens",
        "ntm-sigmoid",
        "ntm-before-controller",
        "ntm-stack",
        "rnn-sigmoid",
        "rnn-tokens",
    ],
)
def test_served_step_activates_outputs_and_flattens_leaves(name):
    model = make(name)
    inputs, state = random_inputs(model, 1, 3)[0], lived_in_state(model, 3)
    served = ServedStep(model)
    results = served(inputs, *flatten(state).values())
    outputs, next_state, trace = model.step(inputs, state)
    expected = [model.activate(outputs), *flatten(next_state).values(), *trace.values()]
    assert served.names == list(flatten(state))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(results, expected, strict=True))


def test_served_step_runs_on_a_state_of_another_size():
    model = make("dnc-sparse-links")
    inputs, state = random_inputs(model, 1, 3)[0], model.initial_state(3, memory_size=11)
    results = ServedStep(model)(inputs, *flatten(state).values())
    outputs, next_state, trace = model.step(inputs, state)
    expected = [model.activate(outputs), *flatten(next_state).values(), *trace.values()]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(results, expected, strict=True))


def test_served_step_with_learned_starts_can_be_copied():
    step = ServedStep(make("ntm-learned-starts"))
    assert copy.deepcopy(step).names == step.names
