"""Presets: shipped ones, those of a file, and the errors of unusable ones."""

import dataclasses
import json

import pytest

from models.config import ConfigError
from models.dnc import DNCConfig
from models.manifest import read_manifest
from models.registry import MODELS, build, config_values
from tests.training import tiny
from training.optimizers import OptimizerConfig
from training.preset import PRESETS, Point, Stage, TrainingConfig, load_preset, preset_from_values, preset_names
from training.tasks import Copy

SHIPPED = sorted(path.stem for path in PRESETS.glob("*.toml"))


def without(values, table, key):
    del values[table][key]
    return values


def test_presets_that_ship_are_there():
    assert set(SHIPPED) >= {"dnc-copy", "ntm-copy", "ntm-feed-forward-copy", "lstm-copy"}
    assert preset_names() == SHIPPED


def shipped(name):
    """Return a shipped preset; those of bAbI, whose stories are not shipped, with the words of the model that is."""
    words = read_manifest(tiny.ROOT / "checkpoints" / "dnc-babi").task["vocabulary"]
    return load_preset(name, {"task.vocabulary": words} if "babi" in name else {})


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_preset_survives_the_way_through_plain_values(name):
    preset = shipped(name)
    assert preset.name == name
    assert preset_from_values(json.loads(json.dumps(preset.values()))) == preset


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_preset_builds_a_model_for_its_task(name):
    preset = shipped(name)
    model = build(preset.kind, config_values(preset.model))
    assert isinstance(model, MODELS[preset.kind][1])
    due = preset.task.model_values
    assert (model.input_size, model.output_size) == (due["input_size"], due["output_size"])
    assert model.output_activation == due["output_activation"]


def test_file_is_read_key_by_key(tmp_path):
    preset = load_preset(str(tiny.write_toml(tmp_path / "mine.toml", seed=7, patience=2, kind="rmsprop", l2=0.5)))
    assert preset.name == "mine"
    assert preset.task == Copy(bits=2, length=(1, 3))
    assert (preset.kind, preset.model.input_size, preset.model.controller.hidden_size) == ("rnn", 4, 8)
    assert preset.training == TrainingConfig(
        updates=30, batch_size=4, validate_every=10, validation_sequences=8, patience=2, seed=7
    )
    assert preset.optimizer == OptimizerConfig("rmsprop", learning_rate=1e-2, l2=0.5)


def test_byte_order_mark_before_a_file_changes_nothing(tmp_path):
    file = tiny.write_toml(tmp_path / "mine.toml")
    preset = load_preset(str(file))
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert load_preset(str(file)) == preset


def test_file_without_an_optimizer_has_the_default_one():
    given = tiny.values()
    del given["optimizer"]
    assert preset_from_values(given).optimizer == OptimizerConfig()


def test_written_file_is_read_back_as_its_values(tmp_path):
    lists = {"curriculum": [{"length": [1, 2], "until": 0.5}], "evaluation": [{"length": 3, "target": 0.1}]}
    path = tiny.write_toml(tmp_path / "tiny.toml", "dnc", **lists)
    assert load_preset(str(path)) == tiny.preset("dnc", **lists)


def test_values_of_a_model_hold_every_option_of_its_own():
    preset = preset_from_values(tiny.values("dnc-2-read-3-write-heads"))
    assert preset.model == DNCConfig(
        4, 2, 8, 4, read_heads=2, write_heads=3, controller=preset.model.controller, output_activation="sigmoid"
    )
    kept = {field.name for field in dataclasses.fields(DNCConfig)} - set(preset.task.model_values)
    assert set(preset.values()["model"]) == kept | {"kind"}


# Ranges, lessons, measurements


@pytest.mark.parametrize(("given", "due"), [(5, (5, 5)), ([2, 4], (2, 4))])
def test_size_is_a_range_or_the_one_number_in_it(given, due):
    preset = tiny.preset(task={"length": given})
    assert preset.task.length == due
    assert preset.values()["task"]["length"] == given


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ([4, 2], r"Copy.length must be \[least, greatest\] with 1 <= least <= greatest, got \[4, 2\]"),
        ([0, 2], "Copy.length must be"),
        ([1, 2, 3], r"task.length: expected a list of 2, got \[1, 2, 3\]"),
        ("long", "task.length: expected a list of 2, got 'long'"),
        ([1, 2.5], r"task.length\[1\]: expected int, got 2.5"),
    ],
)
def test_size_that_is_no_range_is_named(given, complaint):
    with pytest.raises(ConfigError, match=complaint):
        tiny.preset(task={"length": given})


def test_lessons_and_measurements_are_read_in_their_order():
    preset = tiny.preset(
        "ntm",
        curriculum=[{"length": 1, "until": 0.5}, {"length": [1, 2], "until": 1}],
        evaluation=[{"length": 9, "memory_size": 16, "target": 0.25, "published": "none (here)"}, {}],
    )
    assert preset.curriculum == (Stage({"length": 1}, 0.5), Stage({"length": [1, 2]}, 1.0))
    assert preset.evaluation == (Point({"length": 9}, 16, 0.25, "none (here)"), Point({}))
    assert preset_from_values(json.loads(json.dumps(preset.values()))) == preset


@pytest.mark.parametrize(
    ("lists", "complaint"),
    [
        ({"curriculum": [{"length": 2}]}, r"curriculum\[0\].until: expected a finite loss above 0, got None"),
        ({"curriculum": [{"until": True}]}, r"curriculum\[0\].until: expected a finite loss above 0, got True"),
        ({"curriculum": [{"until": 0}]}, r"curriculum\[0\].until: expected a finite loss above 0, got 0"),
        (
            {"curriculum": [{"until": 1}, {"until": 1, "len": 2}]},
            r"curriculum\[1\]: task: unknown key 'len'; known keys are bits, length",
        ),
        (
            {"curriculum": [{"until": 1, "bits": 3}]},
            r"curriculum\[0\]: with {'bits': 3} the task copy needs another model",
        ),
        ({"curriculum": {"until": 1}}, r"curriculum must be a list of tables, \[\[curriculum\]\]"),
        ({"evaluation": [{"length": 0}]}, r"evaluation\[0\]: Copy.length must be"),
        ({"evaluation": [{"bits": 3}]}, r"evaluation\[0\]: with {'bits': 3} the task copy needs another model"),
        ({"evaluation": [{"target": "low"}]}, r"evaluation\[0\].target: expected float"),
        ({"evaluation": [{}, {"memory_size": 8}]}, r"evaluation\[1\].memory_size: 8, but this model has no memory"),
        ({"evaluation": [3]}, r"evaluation must be a list of tables, \[\[evaluation\]\], got \[3\]"),
    ],
)
def test_lesson_or_measurement_that_cannot_be_is_named(lists, complaint):
    with pytest.raises(ConfigError, match=complaint):
        tiny.preset(**lists)


def test_impossible_memory_size_is_refused_with_the_preset():
    with pytest.raises(ConfigError, match=r"DNCConfig\.memory_size must be at least 1, got 0"):
        tiny.preset("dnc", evaluation=[{"memory_size": 0}])


# Values changed


def test_lists_given_beside_a_preset_replace_its_own():
    preset = load_preset("dnc-copy", {"curriculum": [{"length": 3, "until": 0.5}], "evaluation": []})
    assert preset.curriculum == (Stage({"length": 3}, 0.5),)
    assert preset.evaluation == ()


def test_values_given_beside_a_preset_replace_its_own():
    preset = load_preset(
        "dnc-copy",
        {
            "task.length": [1, 30],
            "optimizer.learning_rate": 0.5,
            "training.seed": 9,
            "model.controller.hidden_size": 7,
        },
    )
    assert preset.task.length == (1, 30)
    assert (preset.optimizer.learning_rate, preset.training.seed) == (0.5, 9)
    assert (preset.model.controller.kind, preset.model.controller.hidden_size) == ("lstm", 7)


def test_value_may_be_the_first_of_its_table(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(tiny.write_toml(path).read_text().partition("[optimizer]")[0])
    assert load_preset(str(path), {"optimizer.kind": "rmsprop"}).optimizer == OptimizerConfig("rmsprop")


@pytest.mark.parametrize(
    ("key", "complaint"),
    [
        ("length", r"length: expected TABLE\.KEY, with a table of task, model, training, optimizer"),
        ("task.size", "task: unknown key 'size'; known keys are bits, length"),
        ("task.length.least", "task.length.least: length is no table of the preset"),
        ("tasks.length", "unknown key 'tasks'; known keys are task, model"),
        ("optimizer.", "optimizer: unknown key ''"),
        ("curriculum.until", "curriculum must be a list of tables"),
        ("name.is", "unknown key 'name': a preset has the name of its file"),
    ],
)
def test_key_that_is_none_of_a_preset_is_named(tmp_path, key, complaint):
    path = tiny.write_toml(tmp_path / "tiny.toml")
    with pytest.raises(ConfigError, match=complaint):
        load_preset(str(path), {key: 3})


# Complaints


def test_unknown_preset_is_refused_with_all_names():
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
    with pytest.raises(ConfigError, match="unknown key 'schedule'; known keys are task, model, training, optimizer"):
        preset_from_values(tiny.values() | {"schedule": {}})


@pytest.mark.parametrize(
    ("table", "key", "value", "complaint"),
    [
        ("training", "epochs", 3, "training: unknown key 'epochs'; known keys are updates, batch_size"),
        ("training", "learning_rate", 0.1, "training: unknown key 'learning_rate'"),
        ("training", "updates", "3", "training.updates: expected int, got '3'"),
        ("training", "updates", 3.0, "training.updates: expected int, got 3.0"),
        ("training", "batch_size", True, "training.batch_size: expected int, got True"),
        ("training", "mixed_lengths", 1, "training.mixed_lengths: expected bool, got 1"),
        ("training", "updates", 0, "TrainingConfig.updates must be at least 1, got 0"),
        ("training", "seed", -1, "TrainingConfig.seed must be at least 0, got -1"),
        ("training", "seed", 10**23, "TrainingConfig.seed must be at most 4294967295, got 1000000"),
        ("training", "skips", -1, "TrainingConfig.skips must be at least 0, got -1"),
        ("optimizer", "learning_rate", -0.1, "OptimizerConfig.learning_rate must be at least 0 and finite, got -0.1"),
        ("optimizer", "kind", "sgd", "optimizer.kind: expected one of 'adam', 'rmsprop', got 'sgd'"),
        ("optimizer", "schedule", "step", "optimizer.schedule: expected one of 'constant', 'linear', 'cosine', "),
        ("optimizer", "betas", 0.9, "optimizer.betas: expected a list of 2, got 0.9"),
        ("optimizer", "rate", 0.1, "optimizer: unknown key 'rate'; known keys are kind, learning_rate"),
        ("model", "memory_size", 8, "model: unknown key 'memory_size'"),
        ("model", "kind", "transformer", "model.kind: expected one of dnc, ntm, rnn, got 'transformer'"),
        ("model", "controller", {"kind": "gruu"}, "model.controller.kind: expected one of basic-rnn, gru, lstm, "),
        ("model", "controller", {"kind": "lstm", "size": 3}, "model.controller: unknown key 'size'"),
        ("model", "input_size", 9, "model.input_size: the task sets it, here to 4"),
        ("model", "output_size", 2, "model.output_size: the task sets it, here to 2"),
        ("model", "output_activation", "tanh", "model.output_activation: the task sets it, here to 'sigmoid'"),
        ("task", "bits", "8", "task.bits: expected int, got '8'"),
        ("task", "name", "copies", "task.name: expected one of copy, repeat-copy, "),
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


def test_model_without_a_kind_is_refused_with_all_kinds():
    with pytest.raises(ConfigError, match=r"model\.kind: expected one of dnc, ntm, rnn, got None"):
        preset_from_values(without(tiny.values(), "model", "kind"))


def test_whole_number_passes_for_a_rate():
    rate = tiny.preset(learning_rate=1).optimizer.learning_rate
    assert rate == 1.0
    assert type(rate) is float


def test_with_training_changes_the_given_settings_only():
    preset = tiny.preset()
    changed = preset.with_training(seed=0, updates=None)
    assert changed.training == dataclasses.replace(preset.training, seed=0)
    assert dataclasses.replace(changed, training=preset.training) == preset


def test_with_training_refuses_values_invalid_in_files():
    with pytest.raises(ConfigError, match="updates must be at least 1"):
        tiny.preset().with_training(updates=0)
