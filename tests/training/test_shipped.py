"""The shipped checkpoints: their files belong together, and they reach the errors on their cards."""

import dataclasses
import math

import matplotlib.image
import pytest
import torch

from models.artefact import load
from models.contract import unroll
from models.manifest import MANIFEST_FILE, ONNX_FILE, WEIGHTS_FILE, Manifest, read_manifest, sha256
from models.registry import model_config
from tests.training import tiny
from tests.training.graphs import initial_leaves, metadata, next_leaves, run_graph, session
from training.card import FIGURES, render_card
from training.evaluation import evaluate, measure, points_of
from training.preset import load_preset
from training.table import line, seeds_text
from training.tasks import build_task

CHECKPOINTS = tiny.ROOT / "checkpoints"
NAMES = sorted(path.parent.name for path in CHECKPOINTS.glob(f"*/{MANIFEST_FILE}"))
SEED = 424242
"""The seed of the sequences drawn here, which are not those of the cards."""

SHIPPED = [
    "dnc-associative-recall",
    "dnc-babi",
    "dnc-babi-1",
    "dnc-copy",
    "dnc-family-tree",
    "dnc-graph-traversal",
    "dnc-key-value",
    "dnc-ngrams",
    "dnc-priority-sort",
    "dnc-repeat-copy",
    "dnc-shortest-path",
    "gru-dyck",
    "gru-ngrams",
    "gru-priority-sort",
    "gru-repeat-copy",
    "lstm-associative-recall",
    "lstm-copy",
    "lstm-dyck",
    "ntm-associative-recall",
    "ntm-copy",
    "ntm-ngrams",
    "ntm-priority-sort",
    "ntm-repeat-copy",
]

SEEDS = {"dnc-shortest-path": 1}
"""The number of trained seeds, if it is less than four."""

shipped = pytest.mark.parametrize("name", NAMES)


def test_no_model_is_missing():
    assert NAMES == SHIPPED


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
    words = {f"task.{key}": value for key, value in manifest.task.items() if key == "vocabulary"}
    preset = load_preset(manifest.training["preset"], words)  # no stories are read: they are not here
    assert preset.name == name
    assert (manifest.kind, model_config(manifest.kind, manifest.config)) == (preset.kind, preset.model)
    assert build_task(manifest.task) == preset.task
    assert manifest.training["updates"] <= preset.training.updates
    assert manifest.training["sequences"] == manifest.training["updates"] * preset.training.batch_size
    assert points_of(manifest.evaluation) == [
        dataclasses.replace(point, memory_size=point.memory_size or manifest.config.get("memory_size"))
        for point in preset.evaluation
    ]


@shipped
def test_best_of_several_seeds_was_chosen(name):
    training = read_manifest(CHECKPOINTS / name).training
    assert len(training["seeds"]) >= SEEDS.get(name, 4)
    best = min(training["seeds"], key=lambda seed: training["seeds"][seed]["mean_errors"] or math.inf)
    assert str(training["seed"]) == best
    assert training["seeds"][best]["sequences"] == training["sequences"]


@shipped
def test_errors_were_measured_on_a_thousand_sequences(name):
    manifest = read_manifest(CHECKPOINTS / name)
    assert manifest.evaluation
    for row in manifest.evaluation:
        questions = round(row["sequences"] * row["asked"])
        assert (questions if manifest.task["name"] == "babi" else row["sequences"]) >= 1000  # a task's test, whole


@shipped
def test_card_is_that_of_the_manifest(name):
    directory = CHECKPOINTS / name
    figures = [figure for figure in FIGURES if (directory / figure).exists()]
    assert {"learning.png", "weightings.png"} <= set(figures)
    assert (directory / "README.md").read_text() == render_card(name, read_manifest(directory), figures, "apache-2.0")


@shipped
def test_figures_are_not_blank(name):
    for path in (CHECKPOINTS / name).glob("*.png"):
        assert matplotlib.image.imread(path).std() > 0.01, path


@shipped
def test_files_hold_no_path_of_the_machine(name):
    for file in (MANIFEST_FILE, ONNX_FILE, "README.md"):
        data = (CHECKPOINTS / name / file).read_bytes()
        assert not [path for path in (b"/home/", b"/root/", b"/tmp/", b"site-packages") if path in data]


@shipped
def test_results_page_has_the_rows_of_the_manifest(name):
    page = (tiny.ROOT / "docs" / "results.md").read_text()
    manifest = read_manifest(CHECKPOINTS / name)
    assert f"\n{name}: {manifest.task['name']}, {seeds_text(manifest)}\n" in page
    for row in manifest.evaluation:
        assert f"\n{line(row)}\n" in page


@shipped
def test_errors_on_other_sequences_are_those_of_the_card(name):
    """The first row again, on sequences of another seed: within the variation of 100 sequences."""
    model, manifest = load(CHECKPOINTS / name)
    row, task = manifest.evaluation[0], build_task(manifest.task)
    if task.name == "babi":
        pytest.skip("the stories are not here")
    measured = measure(model, task.with_options(row["options"]), 100, SEED, row["memory_size"])
    spread = 5 * (row["errors"] + 1) / 10 if row["optimum"] is None else 3
    assert abs(measured.excess - (row["errors"] - (row["optimum"] or 0))) < spread


@pytest.mark.parametrize("name", [name for name in NAMES if name in ("dnc-copy", "ntm-associative-recall")])
def test_measured_errors_come_out_again(name):
    model, manifest = load(CHECKPOINTS / name)
    recorded = manifest.evaluation[0]
    (row,) = evaluate(model, build_task(manifest.task), points_of([recorded]), recorded["sequences"])
    assert recorded | row == recorded


@shipped
def test_graph_answers_as_the_model_does(name):
    model, manifest = load(CHECKPOINTS / name)
    task = build_task(manifest.task)
    if task.name == "babi":
        pytest.skip("the stories are not here")
    easiest = task.with_options({size: least for size, (least, _) in task.sizes.items()})
    episode = easiest.sample(torch.Generator().manual_seed(SEED), 1)
    graph = session(CHECKPOINTS / name / ONNX_FILE)
    leaves, said = initial_leaves(graph), []
    for inputs in episode.inputs.numpy():
        outputs = run_graph(graph, inputs, leaves)
        leaves = next_leaves(outputs)
        said.append(torch.from_numpy(outputs["outputs"][0]))
    graph_says = torch.stack(said)[:, None]
    outputs, _, _ = unroll(model, episode.inputs, model.initial_state(1))
    torch_says = model.activate(outputs.detach())
    assert (graph_says - torch_says).abs().max() < 0.01
