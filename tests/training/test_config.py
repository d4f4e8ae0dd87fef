"""Presets: those that ship, those of a file, and what is said of those that cannot be used."""

import dataclasses
import json

import pytest

from models.config import ConfigError
from models.dnc import DNCConfig
from models.registry import MODELS, build, config_values
from tests.training import tiny
from training.config import PRESETS, TrainingConfig, load_preset, preset_from_values, preset_names
from training.tasks import Copy

SHIPPED = sorted(path.stem for path in PRESETS.glob("*.toml"))


def without(values, table, key):
    del values[table][key]
    return values


def test_presets_that_ship_are_there():
    assert set(SHIPPED) >= {"dnc-copy", "ntm-copy", "ntm-feed-forward-copy", "lstm-copy"}
    assert preset_names() == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_preset_survives_the_way_through_plain_values(name):
    preset = load_preset(name)
    assert preset.name == name
    assert preset_from_values(json.loads(json.dumps(preset.values()))) == preset


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_preset_makes_a_model_of_the_sizes_of_its_task(name):
    preset = load_preset(name)
    model = build(preset.kind, config_values(preset.model))
    assert isinstance(model, MODELS[preset.kind][1])
    assert (model.input_size, model.output_size) == (preset.task.input_size, preset.task.output_size)
    assert model.output_activation == "sigmoid"


def test_file_is_read_key_by_key(tmp_path):
    preset = load_preset(str(tiny.write_toml(tmp_path / "mine.toml", seed=7, patience=2)))
    assert preset.name == "mine"
    assert preset.task == Copy(bits=2, min_length=1, max_length=3)
    assert (preset.kind, preset.model.input_size, preset.model.controller.hidden_size) == ("rnn", 4, 8)
    assert preset.training == TrainingConfig(
        updates=30, batch_size=4, learning_rate=1e-2, validate_every=10, validation_sequences=8, patience=2, seed=7
    )


def test_values_of_a_model_hold_every_option_of_its_own():
    preset = preset_from_values(tiny.values("dnc-2-read-3-write-heads"))
    assert preset.model == DNCConfig(
        4, 2, 8, 4, read_heads=2, write_heads=3, controller=preset.model.controller, output_activation="sigmoid"
    )
    kept = {field.name for field in dataclasses.fields(DNCConfig)} - {"input_size", "output_size"}
    assert set(preset.values()["model"]) == kept | {"kind"}


def test_unknown_preset_is_told_which_there_are():
    with pytest.raises(ConfigError) as caught:
        load_preset("dnc-sort")
    assert "'dnc-sort'" in str(caught.value)
    for name in SHIPPED:
        assert name in str(caught.value)


@pytest.mark.parametrize("content", [None, b"[task", b"\xff\xfe"], ids=["missing", "no TOML", "no text"])
def test_file_that_cannot_be_read_is_named(tmp_path, content):
    path = tmp_path / "mine.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"mine\.toml: "):
        load_preset(str(path))


@pytest.mark.parametrize("table", ["task", "model", "training"])
def test_missing_table_is_named(table):
    values = tiny.values()
    del values[table]
    with pytest.raises(ConfigError, match=rf"table \[{table}\] is missing"):
        preset_from_values(values)


def test_table_that_is_none_is_named():
    with pytest.raises(ConfigError, match=r"table \[model\] is missing"):
        preset_from_values(tiny.values() | {"model": "dnc"})


def test_unknown_table_is_named():
    with pytest.raises(ConfigError, match="unknown key 'optimizer'; known keys are task, model, training"):
        preset_from_values(tiny.values() | {"optimizer": {}})


@pytest.mark.parametrize(
    ("table", "key", "value", "complaint"),
    [
        ("training", "epochs", 3, "training: unknown key 'epochs'; known keys are updates, batch_size"),
        ("training", "updates", "3", "training.updates: expected int, got '3'"),
        ("training", "updates", 3.0, "training.updates: expected int, got 3.0"),
        ("training", "batch_size", True, "training.batch_size: expected int, got True"),
        ("training", "updates", 0, "TrainingConfig.updates must be at least 1, got 0"),
        ("training", "seed", -1, "TrainingConfig.seed must be at least 0, got -1"),
        ("training", "learning_rate", -0.1, "TrainingConfig.learning_rate must be at least 0, got -0.1"),
        ("model", "memory_size", 8, "model: unknown key 'memory_size'"),
        ("model", "kind", "transformer", "model.kind: expected one of dnc, ntm, rnn, got 'transformer'"),
        ("model", "output_activation", "tanh", "expected one of 'identity', 'sigmoid', 'softmax', got 'tanh'"),
        ("model", "controller", {"kind": "gruu"}, "model.controller.kind: expected one of basic-rnn, gru, lstm, "),
        ("model", "controller", {"kind": "lstm", "size": 3}, "model.controller: unknown key 'size'"),
        ("model", "input_size", 9, "model.input_size: the task sets it, here to 4"),
        ("model", "output_size", 2, "model.output_size: the task sets it, here to 2"),
        ("task", "bits", "8", "task.bits: expected int, got '8'"),
    ],
)
def test_bad_value_is_named(table, key, value, complaint):
    values = tiny.values()
    values[table][key] = value
    with pytest.raises(ConfigError) as caught:
        preset_from_values(values)
    assert complaint in str(caught.value)


def test_updates_must_be_given():
    with pytest.raises(ConfigError, match="training: key 'updates' is missing"):
        preset_from_values(without(tiny.values(), "training", "updates"))


def test_model_without_a_kind_is_told_which_there_are():
    with pytest.raises(ConfigError, match=r"model\.kind: expected one of dnc, ntm, rnn, got None"):
        preset_from_values(without(tiny.values(), "model", "kind"))


def test_whole_number_passes_for_a_rate():
    training = preset_from_values(tiny.values(learning_rate=1)).training
    assert training.learning_rate == 1.0
    assert type(training.learning_rate) is float


def test_rate_falls_in_a_line_from_the_first_update_to_the_last():
    training = TrainingConfig(updates=101, learning_rate=2.0, final_rate=0.1)
    assert training.rate(0) == 2.0
    assert training.rate(50) == pytest.approx(1.1)
    assert training.rate(100) == pytest.approx(0.2)


def test_rate_of_a_single_update_is_the_first():
    assert TrainingConfig(updates=1, learning_rate=2.0).rate(0) == 2.0


def test_with_training_changes_what_is_given_and_nothing_else():
    preset = tiny.preset()
    changed = preset.with_training(seed=0, updates=None)
    assert changed.training == dataclasses.replace(preset.training, seed=0)
    assert dataclasses.replace(changed, training=preset.training) == preset


def test_with_training_refuses_what_a_file_could_not_say():
    with pytest.raises(ConfigError, match="updates must be at least 1"):
        tiny.preset().with_training(updates=0)
