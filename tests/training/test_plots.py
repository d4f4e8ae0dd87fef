"""Figures: what is drawn, and that it is there in the file."""

import matplotlib.image
import pytest
import torch

from tests.training import tiny
from tests.training.delay_line import DelayLine
from training import plots
from training.plots import plot_sequence
from training.tasks import Copy
from training.trainer import Trainer

TASK = Copy(bits=2)


def drawn(monkeypatch, model, length=3):
    """Return what would be drawn: title, label of the axis, and values, for each panel."""
    panels = []
    monkeypatch.setattr(plots, "_draw", lambda _, given: panels.extend(given))
    plot_sequence(None, model, TASK, length, seed=1)
    return panels


def test_figure_is_a_picture_that_can_be_read(tmp_path):
    plot_sequence(tmp_path / "figure.png", Trainer(tiny.preset("dnc")).model, TASK, 3, seed=1)
    picture = matplotlib.image.imread(tmp_path / "figure.png")
    height, width, _ = picture.shape
    assert width == 990
    assert height > 400
    assert len({tuple(color) for color in picture[::7, ::7].reshape(-1, 4).tolist()}) > 5


def test_figure_grows_with_the_heads(tmp_path):
    heights = []
    for name in ("rnn", "dnc", "dnc-2-read-3-write-heads"):
        plot_sequence(tmp_path / "figure.png", Trainer(tiny.preset(name)).model, TASK, 3, seed=1)
        heights.append(len(matplotlib.image.imread(tmp_path / "figure.png")))
    assert heights == sorted(set(heights))


def test_figure_of_the_same_seed_is_the_same_file_and_of_another_seed_another(tmp_path):
    model = Trainer(tiny.preset("ntm")).model
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        plot_sequence(tmp_path / f"{name}.png", model, TASK, 5, seed)
    first, again, other = ((tmp_path / f"{name}.png").read_bytes() for name in ("first", "again", "other"))
    assert first == again
    assert first != other
    assert b"matplotlib" not in first.lower()


def test_panels_are_the_sequence_and_a_row_for_every_head(monkeypatch):
    panels = drawn(monkeypatch, Trainer(tiny.preset("dnc-2-read-3-write-heads")).model)
    writes = [f"write weights, head {head}" for head in range(3)]
    reads = [f"read weights, head {head}" for head in range(2)]
    assert [title for title, _, _ in panels] == ["input", "target", "output", *writes, *reads]
    assert [label for _, label, _ in panels] == ["channel", "bit", "bit", *["slot"] * 5]
    assert [values.shape for _, _, values in panels] == [(4, 8), (2, 8), (2, 8), *[(8, 8)] * 5]


def test_weightings_are_drawn_at_the_step_and_slot_they_were_at(monkeypatch):
    model = Trainer(tiny.preset("dnc-2-read-3-write-heads")).model
    inputs = TASK.sample(torch.Generator().manual_seed(1), 1, 3).inputs
    panels = {title: values for title, _, values in drawn(monkeypatch, model)}
    state = model.initial_state(1)
    for step, step_inputs in enumerate(inputs):
        _, state, _ = model.step(step_inputs, state)
        for title, weights in (("read", state.read_weights), ("write", state.write_weights)):
            for head, of_head in enumerate(weights[0].tolist()):
                assert panels[f"{title} weights, head {head}"][:, step] == pytest.approx(of_head)


def test_output_is_drawn_as_a_probability_and_only_where_it_was_asked_for(monkeypatch):
    _, _, (_, _, output) = drawn(monkeypatch, DelayLine(TASK, 3, certainty=0.0))
    assert (output[:, -3:] == 0.5).all()
    assert not output[:, :-3].any()


def test_output_of_a_right_model_is_drawn_as_the_target_where_it_was_asked_for(monkeypatch):
    input_panel, target, output = (values for _, _, values in drawn(monkeypatch, DelayLine(TASK, 3, certainty=50.0)))
    assert output == pytest.approx(target)
    assert (target[:, -3:] == input_panel[:2, 1:4]).all()
    assert not target[:, :-3].any()
