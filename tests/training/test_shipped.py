"""The checkpoints that ship: their files belong together, and they do what their cards say."""

import dataclasses

import matplotlib.image
import pytest
import torch

from models.artefact import load
from models.manifest import MANIFEST_FILE, ONNX_FILE, WEIGHTS_FILE, Manifest, read_manifest, sha256
from models.registry import model_config
from tests.training import tiny
from tests.training.graphs import initial_leaves, metadata, next_leaves, run_graph, session
from training.card import FIGURE, render_card
from training.config import load_preset
from training.evaluation import bit_errors, evaluate
from training.tasks import build_task

CHECKPOINTS = tiny.ROOT / "checkpoints"
NAMES = ["dnc-copy", "lstm-copy", "ntm-copy"]
SEED = 424242
"""Of the sequences drawn here, which are not those of the cards."""

shipped = pytest.mark.parametrize("name", NAMES)


def test_all_that_ships_is_looked_at_here():
    assert sorted(path.parent.name for path in CHECKPOINTS.glob(f"*/{MANIFEST_FILE}")) == NAMES


@shipped
def test_weights_are_those_of_the_manifest(name):
    model, manifest = load(CHECKPOINTS / name)
    assert manifest.weights_sha256 == sha256(CHECKPOINTS / name / WEIGHTS_FILE)
    assert manifest.parameters == sum(parameter.numel() for parameter in model.parameters())


@shipped
def test_graph_is_that_of_the_weights(name):
    beside = read_manifest(CHECKPOINTS / name)
    inside = Manifest.from_json(metadata(session(CHECKPOINTS / name / ONNX_FILE))["engram.manifest"], "metadata")
    assert inside.weights_sha256 == beside.weights_sha256
    assert dataclasses.replace(inside, evaluation=[]) == dataclasses.replace(beside, evaluation=[])


@shipped
def test_model_is_that_of_its_preset(name):
    manifest = read_manifest(CHECKPOINTS / name)
    preset = load_preset(manifest.training["preset"])
    assert (manifest.kind, model_config(manifest.kind, manifest.config)) == (preset.kind, preset.model)
    assert build_task(manifest.task) == preset.task
    assert manifest.training["updates"] <= preset.training.updates
    assert manifest.training["sequences"] == manifest.training["updates"] * preset.training.batch_size


@shipped
def test_card_is_that_of_the_manifest(name):
    card = (CHECKPOINTS / name / "README.md").read_text()
    assert card == render_card(name, read_manifest(CHECKPOINTS / name))
    assert f"engram evaluate checkpoints/{name}" in card


@shipped
def test_figure_of_the_card_is_there(name):
    height, width, _ = matplotlib.image.imread(CHECKPOINTS / name / FIGURE).shape
    assert width == 990
    assert height > 300


@shipped
def test_files_hold_no_path_of_the_machine_they_were_made_on(name):
    for file in (MANIFEST_FILE, ONNX_FILE, "README.md"):
        data = (CHECKPOINTS / name / file).read_bytes()
        assert not [path for path in (b"/home/", b"/root/", b"/tmp/", b"site-packages") if path in data]


@pytest.mark.parametrize("name", ["dnc-copy", "ntm-copy"])
def test_memory_copies_the_longest_sequences_of_training_without_an_error(name):
    model, manifest = load(CHECKPOINTS / name)
    task = build_task(manifest.task)
    assert task.longest == 20
    assert bit_errors(model, task, 20, sequences=200, seed=SEED).sum() == 0


@shipped
def test_measured_errors_at_length_10_come_out_again(name):
    model, manifest = load(CHECKPOINTS / name)
    as_trained = manifest.config.get("memory_size")
    (recorded,) = [row for row in manifest.evaluation if (row["length"], row["memory_size"]) == (10, as_trained)]
    (row,) = evaluate(model, build_task(manifest.task), [10], recorded["sequences"])
    assert recorded | dataclasses.asdict(row) == recorded


@shipped
def test_graph_says_the_right_bits(name):
    task = build_task(read_manifest(CHECKPOINTS / name).task)
    episode = task.sample(torch.Generator().manual_seed(SEED), 1, length=10)
    graph = session(CHECKPOINTS / name / ONNX_FILE)
    leaves, said = initial_leaves(graph), []
    for inputs in episode.inputs.numpy():
        outputs = run_graph(graph, inputs, leaves)
        leaves = next_leaves(outputs)
        said.append(outputs["outputs"][0].round().tolist())
    assert said[-10:] == episode.targets[-10:, 0].tolist()
