"""Figures: their contents, their scales and their files."""

import errno
import json
import math
import os
from dataclasses import dataclass

import matplotlib.image
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba

from models.manifest import read_manifest
from models.registry import build, model_config
from models.state import flatten
from tests.training.delay_line import DelayLine
from training.checkpoint import save_evaluation, save_model
from training.plots import PlotError, plot_all
from training.plots.generalisation import figure_of_generalisation, lines_measured
from training.plots.learning import Curve, figure_of_learning, learning_curves, median
from training.plots.sequence import (
    dense_links,
    figure_of_gates,
    figure_of_links,
    figure_of_memory,
    figure_of_sequence,
    figure_of_usage,
    figures_of_sequence,
    record,
)
from training.tasks import AnswerTask, Copy, Episode, NGrams, PrioritySort, Range, RepeatCopy, task_values

TASK = Copy(bits=2, length=(1, 3))
STEPS = 8
MEMORY = {"memory_size": 8, "word_size": 4}
FIGURES_OF = {
    "dnc": ["weightings.png", "memory.png", "usage.png", "link.png", "gates.png"],
    "ntm": ["weightings.png", "memory.png", "gates.png"],
    "rnn": ["weightings.png"],
}


def config_of(kind, task=TASK, **changes):
    values = {"controller": {"kind": "lstm", "hidden_size": 8}, **task.model_values}
    return values | ({} if kind == "rnn" else MEMORY) | changes


def model_of(kind, task=TASK, **changes):
    """Return a small model whose gates and weightings are inside their ranges."""
    model = build(kind, config_of(kind, task, **changes))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def recording_of(kind, task=TASK, **changes):
    return record(model_of(kind, task, **changes), task, seed=1)


def checkpoint(directory, kind, rows=(), **training):
    config = model_config(kind, config_of(kind))
    save_model(directory, model_of(kind), kind, config, task_values(TASK), training)
    save_evaluation(directory, read_manifest(directory), list(rows))
    return directory


def row(errors, memory_size=None, optimum=None, **options):
    """Return a row of a manifest's evaluation."""
    return {"options": options, "memory_size": memory_size, "errors": errors, "optimum": optimum, "unit": "wrong bits"}


def panels(figure):
    """Return the axes of a figure by title, without the scales of colours."""
    titles = {axis: axis.get_title(loc="left") or axis.get_title() for axis in figure.axes}
    return {title: axis for axis, title in titles.items() if title}


def drawn(axis):
    """Return the values of a heat map in the order of the picture: [rows, columns], NaN for grey."""
    return axis.images[0].get_array().filled(np.nan)


def scales(figure):
    """Return the limits of all heat maps."""
    return {image.get_clim() for axis in figure.axes for image in axis.images}


def lines_of(axis):
    return {line.get_label(): line.get_xydata().tolist() for line in axis.lines}


def texts(legend):
    return [text.get_text() for text in legend.get_texts()]


def write_metrics(directory, *lines):
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return directory


def validation(update, errors):
    return {"update": update, "sequences": 1000 * update, "validation_errors": errors}


def training(update, loss, errors):
    return {"update": update, "sequences": 1000 * update, "stage": 0, "loss": loss, "errors": errors}


@dataclass(frozen=True)
class Numbers(AnswerTask):
    """Tokens 2 0 1, and after them, of two digits of three classes: 2 0, then 0 1."""

    vocabulary: tuple[str, ...] = ()
    length: Range = (3, 3)

    name = "numbers"
    groups = 2
    classes = 3

    @property
    def model_values(self):
        embedding = {"vocabulary_size": 3, "size": 4}
        values = {"input_size": 1, "output_size": 6, "output_activation": "softmax", "output_groups": 2}
        return values | {"embedding": embedding}

    def sample(self, generator, batch_size):
        inputs = torch.tensor([2.0, 0, 1, 0]).reshape(4, 1, 1)
        mask = torch.tensor([0.0, 1, 1, 0]).reshape(4, 1)
        targets = torch.zeros(4, 1, 6)
        targets[1:3, 0] = self.one_hot(torch.tensor([[2, 0], [0, 1]]))
        return Episode(inputs, targets, mask, torch.tensor([3]))

    def render(self, episode, row=0):
        return ""


# All figures of a directory


@pytest.mark.parametrize("kind", list(FIGURES_OF))
def test_checkpoint_gets_the_figures_that_apply_to_its_model(tmp_path, kind):
    rows = [row(0.5, 8, length=3), row(2.0, 8, length=6)]
    out = tmp_path / "there" / "figures"
    paths = plot_all(checkpoint(tmp_path / "model", kind, rows), out)
    assert paths == [out / name for name in ("generalisation.png", *FIGURES_OF[kind])]
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in paths)


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(FIGURES_OF))
def test_every_figure_is_a_picture_with_something_on_it(tmp_path, kind):
    write_metrics(tmp_path, training(1, 0.7, 3.0), validation(1, 4.0), validation(2, 1.0))
    for path in plot_all(checkpoint(tmp_path, kind, [row(0, length=3), row(1, length=6)]), tmp_path):
        picture = matplotlib.image.imread(path)
        height, width, _ = picture.shape
        assert width >= 800, path
        assert height >= 300, path
        assert len({tuple(color) for color in picture[::5, ::5].reshape(-1, 4).tolist()}) > 4, path


@pytest.mark.slow
def test_figures_of_the_same_directory_are_the_same_files(tmp_path):
    directory = write_metrics(checkpoint(tmp_path / "model", "dnc"), validation(1, 4.0))
    first, again = plot_all(directory, tmp_path / "first"), plot_all(directory, tmp_path / "again")
    for path, other in zip(first, again, strict=True):
        assert path.read_bytes() == other.read_bytes(), path.name
        assert b"matplotlib" not in path.read_bytes().lower()


def test_runs_without_a_checkpoint_get_learning_curves(tmp_path):
    write_metrics(tmp_path / "seed-1", validation(1, 4.0))
    assert plot_all(tmp_path, tmp_path) == [tmp_path / "learning.png"]


def test_directory_without_a_model_and_metrics_is_refused_by_name(tmp_path):
    with pytest.raises(PlotError, match=rf"^{tmp_path}: nothing to draw.* neither a manifest.json nor metrics"):
        plot_all(tmp_path, tmp_path / "figures")
    assert not (tmp_path / "figures").exists()


# Learning


def test_run_is_drawn_over_thousands_of_sequences(tmp_path):
    write_metrics(tmp_path / "run", training(1, 0.7, 3.0), training(2, 0.1, 1.0), validation(2, 4.0), validation(4, 0))
    curves = learning_curves(tmp_path / "run")
    found = panels(figure_of_learning(curves, Copy))
    validated, trained, loss = found.values()
    assert [title.partition(",")[0] for title in found] == ["validation", "training", "loss per element asked for"]
    assert lines_of(validated) == {"run": [[2, 4], [4, 0]]}
    assert lines_of(trained) == {"run": [[1, 3], [2, 1]]}
    assert lines_of(loss) == {"run": [[1, 0.7], [2, 0.1]]}
    assert [axis.get_ylabel() for axis in found.values()] == ["wrong bits per sequence"] * 2 + ["nats"]
    assert loss.get_xlabel() == "sequences (thousands)"


def test_scale_of_errors_is_logarithmic_and_shows_0():
    curve = Curve("run", {"validation_errors": np.array([[0, 100], [1000, 0.0]])}, None)
    (axis,) = panels(figure_of_learning([curve], Copy)).values()
    assert axis.get_yscale() == "symlog"
    least, greatest = axis.get_ylim()
    assert -0.01 < least < 0
    assert greatest > 100


def test_unavoidable_errors_are_labelled_on_a_linear_scale():
    curve = Curve("run", {name: np.array([[0, 180.0]]) for name in ("validation_errors", "errors")}, None)
    validated, trained = panels(figure_of_learning([curve], NGrams)).values()
    assert validated.get_ylabel() == "bits of cost per sequence\nbeyond the optimum"
    assert trained.get_ylabel() == "bits of cost per sequence"
    assert trained.get_yscale() == "linear"


def test_seeds_are_drawn_thin_with_a_bold_median(tmp_path):
    for seed, errors in ((10, 6.0), (2, 1.0), (1, 2.0)):
        write_metrics(tmp_path / f"seed-{seed}", validation(1, errors), validation(2, 0))
    figure = figure_of_learning(learning_curves(tmp_path), Copy)
    (axis,) = panels(figure).values()
    assert texts(figure.legends[0]) == ["seed-1", "seed-2", "seed-10", "median"]
    assert lines_of(axis)["median"] == [[1, 2], [2, 0]]
    widths = [line.get_linewidth() for line in axis.lines]
    assert widths[-1] > 2 * widths[0]
    assert len({line.get_color() for line in axis.lines}) == 4


def test_curves_of_seeds_are_marked_where_they_converged(tmp_path):
    for seed, converged in ((1, 3000), (2, None)):
        run = checkpoint(tmp_path / f"seed-{seed}", "rnn", converged_after=converged)
        write_metrics(run, validation(2, 4.0), validation(4, 2.0))
    figure = figure_of_learning(learning_curves(tmp_path), Copy)
    (axis,) = panels(figure).values()
    assert lines_of(axis)["converged"] == [[3, 3]]
    assert texts(figure.legends[0]) == ["seed-1", "seed-2", "median", "converged"]


def test_checkpoint_that_ships_is_drawn_from_the_validations_beside_it(tmp_path):
    write_metrics(tmp_path, validation(1, 4.0))
    checkpoint(tmp_path, "rnn", seed=2, seeds={"1": {"converged_after": 1600}, "2": {"converged_after": None}})
    (tmp_path / "learning.json").write_text(json.dumps({"1": [[800, 5.5], [1600, 0]], "2": [[800, 3]]}))
    first, second = learning_curves(tmp_path)
    assert (first.name, first.converged_after) == ("seed-1", 1600)
    assert (second.name, second.converged_after) == ("seed-2 (chosen)", None)
    assert first.points["validation_errors"].tolist() == [[800, 5.5], [1600, 0]]


def test_seed_never_validated_has_no_curve(tmp_path):
    checkpoint(tmp_path, "rnn", seed=2, seeds={"1": {"converged_after": None}, "2": {"converged_after": None}})
    (tmp_path / "learning.json").write_text(json.dumps({"1": [], "2": [[800, 3], [1600, 1]]}))
    curves = learning_curves(tmp_path)
    assert [curve.name for curve in curves] == ["seed-2 (chosen)"]
    assert list(panels(figure_of_learning(curves, Copy)))


def test_curves_of_one_point_are_dots(tmp_path):
    write_metrics(tmp_path / "seed-1", validation(1, 4.0))
    write_metrics(tmp_path / "seed-2", validation(1, 4.0), validation(2, 3.0))
    (axis,) = panels(figure_of_learning(learning_curves(tmp_path), Copy)).values()
    assert [(line.get_marker(), line.get_linestyle()) for line in axis.lines] == [
        (".", "None"),
        ("None", "-"),
        ("None", "-"),
    ]


def test_flat_curve_lies_within_its_panel(tmp_path):
    write_metrics(tmp_path, validation(1, 75.0), validation(2, 75.0))
    (axis,) = panels(figure_of_learning(learning_curves(tmp_path), Copy)).values()
    assert axis.get_ylim()[1] > 100


def test_values_that_are_not_finite_are_left_out(tmp_path):
    write_metrics(tmp_path, training(1, math.nan, 3.0), training(2, 0.5, math.inf), validation(1, math.inf))
    (curve,) = learning_curves(tmp_path)
    assert {name: points.tolist() for name, points in curve.points.items()} == {
        "errors": [[1000, 3]],
        "loss": [[2000, 0.5]],
    }


def test_run_that_has_measured_nothing_yet_has_no_curve(tmp_path):
    assert learning_curves(write_metrics(tmp_path)) == []


@pytest.mark.parametrize("name", ["metrics.jsonl", "learning.json"])
@pytest.mark.parametrize("text", ["{\n", "[1]\n", '{"loss": 1, "seeds": 3}\n'])
def test_unreadable_file_of_metrics_is_refused_by_name(tmp_path, name, text):
    (checkpoint(tmp_path, "rnn") / name).write_text(text)
    with pytest.raises(PlotError, match=rf"^{tmp_path / name}: it does not hold "):
        plot_all(tmp_path, tmp_path)


def test_median_interpolates_and_extends_ended_runs():
    ended = np.array([[10, 4.0], [20, 2.0]])
    slow = np.array([[10, 9.0], [40, 9.0]])
    other = np.array([[30, 1.0], [40, 3.0]])
    assert median([ended, slow, other]).tolist() == [[10, 4], [20, 2], [30, 2], [40, 3]]


# Generalisation


def test_measurements_of_each_memory_size_are_a_line():
    rows = [row(3.0, 8, length=6), row(0.5, 8, length=3), row(1.0, 16, length=6)]
    lines = lines_measured(rows)
    assert list(lines) == ["length"]
    assert [(line.name, [row["errors"] for row in line.rows]) for line in lines["length"]] == [
        ("8 locations", [0.5, 3.0]),
        ("16 locations", [1.0]),
    ]


def test_option_beside_the_one_that_varies_names_the_line():
    corner = row(1.0, length=10, repeats=10)
    lines = lines_measured([corner, row(2.0, length=20, repeats=10), row(3.0, length=10, repeats=20)])
    assert {name: [line.name for line in found] for name, found in lines.items()} == {
        "length": ["repeats 10"],
        "repeats": ["length 10"],
    }
    assert lines["length"][0].rows[0] is lines["repeats"][0].rows[0] is corner


@pytest.mark.parametrize(
    "rows", [[], [row(1.0)], [row(1.0, length=3), row(2.0, 16, length=3)], [row(0, length=[1, 3])]]
)
def test_measurements_that_vary_no_option_are_no_lines(rows):
    assert lines_measured(rows) == {}


def test_errors_are_drawn_with_training_sizes_shaded():
    lines = lines_measured([row(0, 8, length=3), row(40.0, 8, length=6), row(2.0, 16, length=6)])
    figure = figure_of_generalisation(lines, TASK)
    (axis,) = figure.axes
    assert lines_of(axis) == {"8 locations": [[3, 0], [6, 40]], "16 locations": [[6, 2]]}
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("length", "wrong bits per sequence")
    assert axis.get_yscale() == "symlog"
    assert texts(axis.get_legend()) == ["sizes of training", "8 locations", "16 locations"]
    (shade,) = axis.patches
    assert (shade.get_x(), shade.get_x() + shade.get_width()) == (0.5, 3.5)


def test_each_option_has_a_panel_with_all_its_errors():
    rows = [row(0, length=10, repeats=10), row(1.0, length=20, repeats=10), row(80.0, length=10, repeats=20)]
    figure = figure_of_generalisation(lines_measured(rows), RepeatCopy())
    assert [axis.get_xlabel() for axis in figure.axes] == ["length", "repeats"]
    for axis in figure.axes:
        assert axis.get_ylim()[0] < 0
        assert axis.get_ylim()[1] > 80


def test_optimum_is_drawn_beside_measured_errors():
    rows = [row(140.0, optimum=129.0, length=200), row(290.0, optimum=250.0, length=400)]
    (axis,) = figure_of_generalisation(lines_measured(rows), NGrams()).axes
    measured, optimum = lines_of(axis).values()
    assert measured == [[200, 140], [400, 290]]
    assert optimum == [[200, 129], [400, 250]]
    assert axis.get_yscale() == "linear"


# One sequence


def test_recording_has_the_greatest_sizes_of_the_task():
    assert recording_of("rnn", Copy(bits=2, length=(1, 30))).inputs.shape == (62, 4)


def test_recording_ends_where_the_sequence_ends():
    recording = recording_of("dnc", Numbers())
    assert recording.inputs.tolist() == [[2], [0], [1]]
    assert recording.asked.tolist() == [False, True, True]
    assert recording.outputs.shape == (3, 6)
    assert recording.trace["usage"].shape == (3, 8)


def test_recording_has_states_and_leaves_the_model_unchanged():
    model = model_of("dnc").train()
    recording = record(model, TASK, seed=1)
    assert list(recording.moments) == [2, 4, 6, 8]
    assert model.training
    state = model.initial_state(1)
    for step, inputs in enumerate(recording.inputs, 1):
        _, state, _ = model.step(inputs[None], state)
        if step in recording.moments:
            for name, leaf in flatten(state).items():
                assert torch.equal(recording.moments[step][name], leaf[0].detach())


def test_recording_shorter_than_its_moments_has_every_step_once():
    assert list(recording_of("dnc", NGrams(order=2, length=(3, 3))).moments) == [1, 2]


def test_dropout_is_not_in_the_recording():
    model = model_of("dnc", bypass_dropout=0.5).train()
    first, again = (record(model, TASK, seed=1).outputs for _ in range(2))
    assert torch.equal(first, again)


@pytest.mark.parametrize(
    ("kind", "changes", "missing"),
    [("dnc", {"links": "none"}, "link.png"), ("dnc", {}, None), ("ntm", {}, None), ("rnn", {}, None)],
)
def test_figures_of_a_sequence_are_those_that_the_model_has(kind, changes, missing):
    figures = figures_of_sequence(recording_of(kind, **changes))
    assert list(figures) == [name for name in FIGURES_OF[kind] if name != missing]


def test_sequence_is_drawn_with_a_panel_for_every_head():
    found = panels(figure_of_sequence(recording_of("dnc", read_heads=2, write_heads=3)))
    writes = [f"write weights, head {head}" for head in range(3)]
    reads = [f"read weights, head {head}" for head in range(2)]
    assert list(found) == ["input", "target (grey: no answer is asked for)", "output", *writes, *reads]
    assert [axis.get_ylabel() for axis in found.values()] == ["channel", "bit", "bit", *["location"] * 5]
    assert [drawn(axis).shape for axis in found.values()] == [(4, 8), (2, 8), (2, 8), *[(8, 8)] * 5]
    assert found[reads[-1]].get_xlabel() == "time (steps)"


def test_weightings_are_drawn_at_their_step_and_location():
    recording = recording_of("dnc", read_heads=2, write_heads=3)
    found = panels(figure_of_sequence(recording))
    state = recording.model.initial_state(1)
    for step, inputs in enumerate(recording.inputs):
        _, state, _ = recording.model.step(inputs[None], state)
        for title, weights in (("read", state.read_weights), ("write", state.write_weights)):
            for head, of_head in enumerate(weights[0].tolist()):
                assert drawn(found[f"{title} weights, head {head}"])[:, step] == pytest.approx(of_head)


def test_weightings_of_small_spread_are_drawn_on_whole_scale():
    figure = figure_of_sequence(recording_of("ntm"))
    assert scales(figure) == {(0, 1)}
    assert figure.axes[-1].get_ylabel() == "value, from 0 to 1"


def test_location_0_is_drawn_at_the_bottom():
    found = panels(figure_of_sequence(recording_of("ntm")))
    assert found["write weights, head 0"].get_ylim() == (-0.5, 7.5)
    assert found["write weights, head 0"].images[0].origin == "lower"


def test_output_is_a_probability_or_grey_if_not_due():
    _, target, output = panels(figure_of_sequence(record(DelayLine(TASK, 3, certainty=0.0), TASK, 1))).values()
    assert (drawn(output)[:, -3:] == 0.5).all()
    for axis in (target, output):
        assert np.isnan(drawn(axis)[:, :-3]).all()
        assert axis.images[0].cmap.get_bad().tolist() == list(to_rgba("0.9"))


def test_output_of_a_right_model_equals_the_target():
    inputs, target, output = panels(figure_of_sequence(record(DelayLine(TASK, 3, 50.0), TASK, 1))).values()
    assert drawn(output)[:, -3:] == pytest.approx(drawn(target)[:, -3:])
    assert (drawn(target)[:, -3:] == drawn(inputs)[:2, 1:4]).all()


def test_inputs_below_0_have_their_own_scale():
    figure = figure_of_sequence(recording_of("rnn", PrioritySort(bits=2, items=(4, 4))))
    inputs, target, output = panels(figure).values()
    assert inputs.images[0].get_clim() == (-1, 1)
    assert target.images[0].get_clim() == output.images[0].get_clim() == (0, 1)
    assert [axis.get_ylabel() for axis in figure.axes[3:]] == ["value, from 0 to 1", "value"]


def test_outputs_as_values_have_a_symmetric_scale():
    recording = recording_of("rnn", output_activation="identity")
    _, _, output = panels(figure_of_sequence(recording)).values()
    largest = recording.outputs[recording.asked].abs().max().item()
    assert output.images[0].get_clim() == pytest.approx((-largest, largest))
    assert output.get_ylabel() == "value"


def test_classes_are_drawn_as_probabilities_per_digit():
    _, target, output = panels(figure_of_sequence(recording_of("rnn", Numbers()))).values()
    assert drawn(target)[:, 1:].tolist() == [[0, 1], [0, 0], [1, 0], [1, 0], [0, 1], [0, 0]]
    digits = drawn(output)[:, 1:].reshape(2, 3, 2)
    assert digits.sum(1) == pytest.approx(np.ones((2, 2)))
    assert [line.get_ydata()[0] for line in output.lines] == [2.5]
    assert output.get_ylabel() == "class"


@pytest.mark.parametrize(
    ("vocabulary", "label", "words"),
    [((), "token", ["2", "0", "1"]), (("mary", "went", "?"), "word", ["?", "mary", "went"])],
)
def test_tokens_are_drawn_as_text_at_their_steps(vocabulary, label, words):
    inputs = panels(figure_of_sequence(recording_of("dnc", Numbers(vocabulary))))["input"]
    assert [text.get_text() for text in inputs.texts] == words
    assert [text.get_position()[0] for text in inputs.texts] == [0, 1, 2]
    assert inputs.get_ylabel() == label


def test_figure_widens_with_the_steps_and_grows_with_the_heads():
    few, many = (figure_of_sequence(recording_of("dnc", write_heads=heads)) for heads in (1, 3))
    long = figure_of_sequence(recording_of("dnc", Copy(bits=2, length=(1, 150))))
    assert few.get_figwidth() == many.get_figwidth() == 9
    assert few.get_figheight() < many.get_figheight()
    assert 9 < long.get_figwidth() <= 30


def test_memory_is_drawn_on_one_symmetric_scale():
    recording = recording_of("ntm")
    figure = figure_of_memory(recording)
    found = panels(figure)
    assert list(found) == [f"after {step} of 8 steps" for step in (2, 4, 6, 8)]
    for axis, leaves in zip(found.values(), recording.moments.values(), strict=True):
        assert drawn(axis) == pytest.approx(leaves["memory"].numpy())
    ((least, greatest),) = scales(figure)
    assert greatest == -least == max(leaves["memory"].abs().max().item() for leaves in recording.moments.values())
    assert [axis.get_xlabel() for axis in found.values()] == ["element of the word"] * 4
    assert figure.axes[0].get_ylabel() == "location"


def test_memory_of_zeros_is_drawn_on_a_scale():
    recording = recording_of("dnc")
    empty = {step: {"memory": torch.zeros(8, 4)} for step in recording.moments}
    assert scales(figure_of_memory(recording._replace(moments=empty))) == {(-1, 1)}


def test_usage_is_drawn_with_the_allocation_of_every_write_head():
    recording = recording_of("dnc", write_heads=2)
    figure = figure_of_usage(recording)
    found = panels(figure)
    assert list(found) == ["input", "usage", "allocation weights, head 0", "allocation weights, head 1"]
    assert drawn(found["usage"]) == pytest.approx(recording.trace["usage"].T.numpy())
    second = recording.trace["allocation_weights"][:, 1].T.numpy()
    assert drawn(found["allocation weights, head 1"]) == pytest.approx(second)
    assert scales(figure) == {(0, 1)}


def test_links_and_precedence_are_drawn_for_every_head():
    recording = recording_of("dnc", write_heads=2)
    figure = figure_of_links(recording)
    found = panels(figure)
    assert len(found) == 2 * 4 + 2
    for step, leaves in recording.moments.items():
        axis = found[f"links, head 1\nafter {step} of 8 steps"]
        assert drawn(axis) == pytest.approx(leaves["link"][1].numpy())
        assert axis.get_xlabel() == "location j"
    precedence = drawn(found["precedence weights, head 1"])
    assert precedence[:, 5] == pytest.approx(recording.moments[6]["precedence_weights"][1].numpy())
    assert scales(figure) == {(0, 1)}


def test_sparse_links_are_drawn_whole():
    recording = recording_of("dnc", links="sparse", links_per_slot=2)
    found = panels(figure_of_links(recording))
    links = drawn(found["links, head 0\nafter 8 of 8 steps"])
    assert links.shape == (8, 8)
    assert links.sum(1) == pytest.approx(recording.moments[8]["link"][0].sum(1).numpy())
    assert (links > 0).sum(1).max() <= 2


def test_dense_links_have_each_entry_in_its_row_and_column():
    leaves = {"link": torch.tensor([[[0.5, 0.0], [0.2, 0.3], [0.0, 1.0]]])}
    leaves["link_columns"] = torch.tensor([[[2.0, 0.0], [0.0, 2.0], [0.0, 1.0]]])
    expected = torch.tensor([[[0.0, 0.0, 0.5], [0.2, 0.0, 0.3], [0.0, 1.0, 0.0]]])
    assert torch.equal(dense_links(leaves), expected)


def test_gates_of_a_dnc_have_lines_and_mode_rows():
    recording = recording_of("dnc", read_heads=2, write_heads=2)
    found = panels(figure_of_gates(recording))
    assert list(found) == ["input", "allocation gate", "write gate", "free gates", "read modes"]
    assert list(lines_of(found["write gate"])) == ["write head 0", "write head 1"]
    assert texts(found["free gates"].get_legend()) == ["read head 0", "read head 1"]
    frees = np.array(lines_of(found["free gates"])["read head 1"])
    assert frees[:, 1] == pytest.approx(recording.trace["free_gates"][:, 1].numpy())
    modes = ["backward 0", "backward 1", "forward 0", "forward 1", "content"]
    rows = [label.get_text() for label in found["read modes"].get_yticklabels()]
    assert rows == [f"read head {head}: {mode}" for head in range(2) for mode in modes]
    assert drawn(found["read modes"])[9] == pytest.approx(recording.trace["read_modes"][:, 1, 4].numpy())


def test_figure_that_cannot_be_written_keeps_the_one_before(tmp_path, monkeypatch):
    directory = checkpoint(tmp_path, "rnn", [])
    path = plot_all(directory, tmp_path)[-1]
    before = path.read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device; free space there"):
        plot_all(directory, tmp_path)
    assert path.read_bytes() == before


def test_gates_of_an_ntm_have_read_heads_first():
    recording = recording_of("ntm", read_heads=2, shift_width=5)
    found = panels(figure_of_gates(recording))
    heads = ["read head 0", "read head 1", "write head 0"]
    assert list(found) == ["input", "key strength", "interpolation gate", "shift weights", "sharpening"]
    assert list(lines_of(found["key strength"])) == heads
    rows = [label.get_text() for label in found["shift weights"].get_yticklabels()]
    assert rows == [f"{head}: {shift}" for head in heads for shift in ("-2", "-1", "0", "+1", "+2")]
    assert drawn(found["shift weights"])[14] == pytest.approx(recording.trace["shift_weights"][:, 2, 4].numpy())


def test_shares_of_stored_programs_are_below_the_gates():
    recording = recording_of("ntm", programs=3)
    title, axis = list(panels(figure_of_gates(recording)).items())[-1]
    assert (title, axis.get_ylabel()) == ("program weights", "program")
    assert drawn(axis) == pytest.approx(recording.trace["program_weights"].T.numpy())


def test_modes_of_a_single_write_head_are_not_numbered():
    found = panels(figure_of_gates(recording_of("dnc")))
    rows = [label.get_text() for label in found["read modes"].get_yticklabels()]
    assert rows == ["read head 0: backward", "read head 0: forward", "read head 0: content"]


def test_gates_and_strengths_have_their_scales():
    recording = recording_of("ntm")
    found = panels(figure_of_gates(recording))
    assert found["interpolation gate"].get_ylim() == pytest.approx((0, 1.05))
    for title in ("key strength", "sharpening"):
        largest = recording.trace[title.replace(" ", "_")].max().item()
        assert found[title].get_ylim() == pytest.approx((0, 1.05 * largest))
