"""The ONNX graph of one step: its contents, its agreement with torch, and that no other graph gets its name."""

import functools
import json
import os
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from models.artefact import load
from models.cells import BasicRNNConfig, LSTMConfig
from models.contract import schemas
from models.manifest import MANIFEST_FILE, ONNX_FILE, WEIGHTS_FILE, Manifest, ManifestError, read_manifest, sha256
from models.rnn import RNN, RNNConfig
from models.state import flatten, unflatten
from tests.training import tiny
from tests.training.graphs import initial_leaves, metadata, next_leaves, run_graph, session
from training import export as export_module
from training.checkpoint import save_model, write_manifest
from training.export import ExportError, build_graph, export
from training.files import TRAINING_FILE
from training.graph_notes import MEANINGS

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("operators_parsed_once")]


@pytest.fixture(scope="module")
def export_of(tmp_path_factory):
    """Return, by the name of a small model, a checkpoint of it with its graph; each is exported once."""

    @functools.cache
    def export_of(name):
        directory = tmp_path_factory.mktemp("exported")
        # Several write heads with wide weightings bring the usage of locations within rounding of each other.
        make = tiny.checkpoint if "heads" in name else tiny.random_checkpoint
        model = make(directory, name).model
        path = export(directory)
        return SimpleNamespace(directory=directory, path=path, model=model, session=session(path))

    return export_of


@pytest.fixture(scope="module", params=list(tiny.MODELS))
def exported(request, export_of):
    return export_of(request.param)


def arrays(tensors):
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}


# The contents of the graph


def test_inputs_and_outputs_are_named_after_state_and_traces(exported):
    manifest = read_manifest(exported.directory)
    inputs = [entry.name for entry in exported.session.get_inputs()]
    outputs = [entry.name for entry in exported.session.get_outputs()]
    assert inputs == ["inputs", *(f"state.{name}" for name in manifest.state)]
    nexts, traces = [f"next.{name}" for name in manifest.state], [f"trace.{name}" for name in manifest.trace]
    assert outputs == ["outputs", *nexts, *traces]


def test_graph_is_valid_and_of_an_opset_that_runtimes_know(exported):
    graph = onnx.load(exported.path)
    onnx.checker.check_model(graph, full_check=True)
    opsets = {entry.domain: entry.version for entry in graph.opset_import}
    assert 18 <= opsets[""] <= 20
    assert {node.domain for node in graph.graph.node} == {""}


def test_graph_documents_itself_and_each_input_and_output(exported):
    graph, manifest = onnx.load(exported.path), read_manifest(exported.directory)
    assert graph.producer_name == "engram"
    assert graph.doc_string.startswith(f"One step of a {manifest.kind} for the task {manifest.task['name']}, ")
    notes = {value.name: value.doc_string for value in (*graph.graph.input, *graph.graph.output)}
    leaves = {name.partition(".")[2] for name in notes} - {""}
    assert {leaf for leaf in leaves if not leaf.startswith("controller.")} <= MEANINGS.keys()
    assert notes["inputs"].startswith("the ")
    assert notes["outputs"] == f"the outputs of the step, after {manifest.config['output_activation']}"


def test_metadata_holds_the_manifest_with_the_hash_of_the_weights(exported):
    values = json.loads(metadata(exported.session)["engram.manifest"])
    assert values == json.loads((exported.directory / MANIFEST_FILE).read_text())
    assert values["weights_sha256"] == sha256(exported.directory / WEIGHTS_FILE)
    assert Manifest.from_json(metadata(exported.session)["engram.manifest"], "metadata") == read_manifest(
        exported.directory
    )


def test_metadata_holds_the_state_before_the_first_step(exported):
    initial = initial_leaves(exported.session)
    expected = arrays(flatten(exported.model.initial_state(1)))
    assert initial.keys() == expected.keys()
    for name, leaf in expected.items():
        assert_array_equal(initial[name], leaf, strict=True)


def test_file_holds_no_path_of_this_machine(exported):
    data = exported.path.read_bytes()
    places = [tiny.ROOT, Path.cwd(), exported.directory, sys.prefix, torch.__file__]
    for path in (*map(os.fsencode, places), b"/home", b"/root", b"site-packages", b".py"):
        assert path not in data, path


# The results of the graph


@pytest.mark.parametrize("batch", [1, 3])
def test_twenty_steps_from_a_fresh_state_are_those_of_torch(exported, batch):
    inputs = torch.randint(0, 2, (20, batch, 4), generator=torch.Generator().manual_seed(batch)).float()
    state = exported.model.initial_state(batch)
    leaves = initial_leaves(exported.session, batch)
    for number, step_inputs in enumerate(inputs):
        with torch.no_grad():
            expected, state, _ = exported.model.step(step_inputs, state)
        outputs = run_graph(exported.session, step_inputs.numpy(), leaves)
        leaves = next_leaves(outputs)
        assert_allclose(outputs["outputs"], expected.sigmoid(), atol=1e-4, err_msg=f"step {number}")


@pytest.mark.parametrize("batch", [1, 3])
def test_step_from_a_used_state_equals_torch_in_every_tensor(exported, batch):
    state = exported.model.initial_state(batch)
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for _ in range(4):
            _, state, _ = exported.model.step(torch.randn(batch, 4, generator=draw), state)
        inputs = torch.randn(batch, 4, generator=draw)
        expected, expected_state, trace = exported.model.step(inputs, state)
    outputs = run_graph(exported.session, inputs.numpy(), arrays(flatten(state)))
    assert_allclose(outputs["outputs"], expected.sigmoid(), atol=1e-5)
    for side, tensors in (("next", flatten(expected_state)), ("trace", trace)):
        for name, tensor in tensors.items():
            assert_allclose(outputs[f"{side}.{name}"], tensor, atol=1e-4, err_msg=name)


def test_rows_of_a_batch_do_not_meet(exported):
    inputs = np.random.default_rng(0).random((3, 4), dtype=np.float32)
    fresh = initial_leaves(exported.session, 3)
    together = run_graph(exported.session, inputs, fresh)
    alone = run_graph(exported.session, inputs[1:2], {name: leaf[1:2] for name, leaf in fresh.items()})
    for name, values in alone.items():
        assert_allclose(together[name][1:2], values, atol=1e-6, err_msg=name)


# Ties: the first of several locations of equal usage


def traces_of_a_first_step(exported, state):
    """Return the traces of the graph and of torch, one step from `state`."""
    inputs = torch.ones(len(state.memory), 4)
    with torch.no_grad():
        _, _, trace = exported.model.step(inputs, state)
    return run_graph(exported.session, inputs.numpy(), arrays(flatten(state))), trace


def test_first_write_goes_to_location_0_as_in_torch(export_of):
    exported = export_of("dnc")
    graph, trace = traces_of_a_first_step(exported, exported.model.initial_state(2))
    assert_allclose(graph["trace.allocation_weights"][:, 0], np.eye(8)[[0, 0]], atol=1e-5)
    assert graph["trace.write_weights"].argmax(2).tolist() == [[0], [0]]
    for name in ("allocation_weights", "write_weights"):
        assert_allclose(graph[f"trace.{name}"], trace[name], atol=1e-6)


def test_locations_of_equal_usage_are_ordered_as_in_torch(export_of):
    exported = export_of("dnc")
    fresh = exported.model.initial_state(1)
    usage = torch.tensor([[0.5, 0.25, 0.5, 0.25, 0.5, 0.25, 0.5, 0.25]])
    graph, trace = traces_of_a_first_step(exported, unflatten(flatten(fresh) | {"usage": usage}, fresh))
    by_hand = [0.5 / 256, 0.75, 0.5 / 512, 0.75 / 4, 0.5 / 1024, 0.75 / 16, 0.5 / 2048, 0.75 / 64]
    assert_allclose(graph["trace.allocation_weights"], [[by_hand]], rtol=1e-4)
    assert_allclose(graph["trace.allocation_weights"], trace["allocation_weights"], rtol=1e-5)


# Only the right graph gets the name


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A checkpoint that was never exported, and the graph of its model."""
    directory = tmp_path_factory.mktemp("built")
    tiny.random_checkpoint(directory, "rnn")
    return directory, build_graph(*load(directory))


@pytest.fixture
def tampered_export(tmp_path, monkeypatch, built):
    """A checkpoint and its export, which calls a function on the model between building its graph and checking it."""
    directory, graph = built
    shutil.copytree(directory, tmp_path, dirs_exist_ok=True)

    def export_tampered(tamper):
        monkeypatch.setattr(export_module, "build_graph", lambda model, _: tamper(model) or graph)
        return export(tmp_path)

    return tmp_path, export_tampered


@torch.no_grad()
def shift_the_output(model):
    model.output.bias += 0.01


@torch.no_grad()
def spoil_a_recurrent_weight(model):
    model.controller.gates.weight[3, -2] += 1


@torch.no_grad()
def shift_every_weight(model):
    for parameter in model.parameters():
        parameter += 0.01


def serve_logits(model):
    model.activate = lambda outputs: outputs


def serve_no_numbers(model):
    model.activate = lambda outputs: outputs * torch.nan


@pytest.mark.parametrize("tamper", [shift_the_output, spoil_a_recurrent_weight, serve_logits, serve_no_numbers])
def test_graph_that_differs_from_torch_is_refused(tampered_export, tamper):
    directory, export_tampered = tampered_export
    with pytest.raises(ExportError, match=r"differs from torch by .* in .* at step \d+ of batch size 1"):
        export_tampered(tamper)
    assert sorted(path.name for path in directory.iterdir()) == [MANIFEST_FILE, WEIGHTS_FILE, TRAINING_FILE]


def test_graph_that_differs_from_torch_leaves_the_older_one(tampered_export):
    directory, export_tampered = tampered_export
    (directory / ONNX_FILE).write_bytes(b"an older graph")
    with pytest.raises(ExportError):
        export_tampered(shift_the_output)
    assert (directory / ONNX_FILE).read_bytes() == b"an older graph"


def test_graph_that_is_right_for_one_row_only_is_refused(tampered_export, monkeypatch):
    run = onnxruntime.InferenceSession.run

    def mix_rows(session, names, feed):
        outputs, *rest = run(session, names, feed)
        return [outputs[::-1], *rest]

    _, export_tampered = tampered_export
    with pytest.raises(ExportError, match="in outputs at step 1 of batch size 2"):
        export_tampered(lambda _: monkeypatch.setattr(onnxruntime.InferenceSession, "run", mix_rows))


def test_graph_of_slightly_other_weights_is_refused(exported, tmp_path, monkeypatch):
    shutil.copytree(exported.directory, tmp_path, dirs_exist_ok=True)
    graph = onnx.load(exported.path)
    monkeypatch.setattr(export_module, "build_graph", lambda model, _: shift_every_weight(model) or graph)
    with pytest.raises(ExportError, match="at step 1 of batch size 1"):
        export(tmp_path)
    assert (tmp_path / ONNX_FILE).read_bytes() == exported.path.read_bytes()


def test_correct_graph_is_checked_and_replaces_the_older_one(tmp_path, monkeypatch, built):
    directory, graph = built
    shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
    (tmp_path / ONNX_FILE).write_bytes(b"an older graph")
    monkeypatch.setattr(export_module, "build_graph", lambda *_: graph)
    calls = []
    assert export(tmp_path, lambda done, total: calls.append((done, total))) == tmp_path / ONNX_FILE
    assert calls == [(number + 1, 300) for number in range(300)]
    assert (tmp_path / ONNX_FILE).read_bytes() == graph.SerializeToString()


def test_export_of_an_earlier_checkpoint_adds_the_traces_it_lacks(tmp_path):
    model = tiny.random_checkpoint(tmp_path, "dnc").model
    complete, weights = read_manifest(tmp_path), (tmp_path / WEIGHTS_FILE).read_bytes()
    write_manifest(tmp_path, replace(complete, trace={"usage": [8]}, evaluation=[{"error": 1.0}]))
    path = export(tmp_path)
    assert read_manifest(tmp_path) == replace(complete, evaluation=[{"error": 1.0}])
    assert complete.trace == schemas(model)[1]
    assert (tmp_path / WEIGHTS_FILE).read_bytes() == weights
    traces = [entry.name for entry in session(path).get_outputs() if entry.name.startswith("trace.")]
    assert traces == [f"trace.{name}" for name in complete.trace]


def growing_cell(directory, weight):
    """Leave a checkpoint of a cell that multiplies its state by a weight at every step."""
    config = RNNConfig(1, 2, controller=BasicRNNConfig(hidden_size=2, activation="relu"), readout=False)
    model = RNN(config)
    torch.nn.init.constant_(model.controller.hidden.weight, weight)
    save_model(directory, model, "rnn", config, {"name": "anything"}, {})


def test_cell_that_overflows_in_torch_is_exported_with_warning(tmp_path, caplog):
    growing_cell(tmp_path, 4.0)
    path = export(tmp_path)
    (record,) = (record for record in caplog.records if record.name == "training.export")
    assert re.match(r"on random inputs of 0 and 1 it overflows float32 after 4\d steps, in torch", record.message)
    outputs = run_graph(session(path), np.ones((1, 1), np.float32), {"controller.h": np.full((1, 2), 0.5, np.float32)})
    assert_allclose(outputs["outputs"], [[8, 8]], atol=1)


def test_graph_that_overflows_where_torch_does_not_is_refused(tmp_path, monkeypatch):
    growing_cell(tmp_path, 0.5)
    model, manifest = load(tmp_path)
    torch.nn.init.constant_(model.controller.hidden.weight, 1e38)
    graph = build_graph(model, manifest)
    monkeypatch.setattr(export_module, "build_graph", lambda *_: graph)
    with pytest.raises(ExportError, match=r"differs from torch by "):
        export(tmp_path)


def test_cell_overflowing_at_its_first_step_is_refused(tmp_path, caplog):
    growing_cell(tmp_path, 3e38)
    model, _ = load(tmp_path)
    torch.nn.init.constant_(model.controller.hidden.bias, 3e38)
    save_model(tmp_path, model, "rnn", model.config, {"name": "anything"}, {})
    with pytest.raises(
        ExportError, match="its first step is not finite, in torch as well: its weights overflow float32"
    ):
        export(tmp_path)
    assert not (tmp_path / ONNX_FILE).exists()


def test_damaged_weights_are_not_exported(tmp_path):
    tiny.checkpoint(tmp_path)
    (tmp_path / WEIGHTS_FILE).write_bytes(b"damaged")
    with pytest.raises(ManifestError, match=WEIGHTS_FILE):
        export(tmp_path)
    assert not (tmp_path / ONNX_FILE).exists()


def test_model_without_an_activation_exports_its_logits(tmp_path, capfd):
    config = RNNConfig(4, 2, controller=LSTMConfig(hidden_size=8))
    model = RNN(config)
    save_model(tmp_path, model, "rnn", config, {"name": "anything"}, {})
    state = model.initial_state(1)
    outputs = run_graph(session(export(tmp_path)), np.ones((1, 4), np.float32), arrays(flatten(state)))
    logits, _, _ = model.step(torch.ones(1, 4), state)
    assert_allclose(outputs["outputs"], logits.detach(), atol=1e-6)
    assert capfd.readouterr() == ("", "")
