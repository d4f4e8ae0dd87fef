"""The table of models, and configs from plain values and back."""

import copy
import json

import pytest

from models.cells import FeedForwardConfig, LSTMConfig
from models.config import ConfigError
from models.dnc import DNC, DNCConfig
from models.embedding import EmbeddingConfig
from models.registry import MODELS, build, config_values, model_config
from tests.models.catalogue import CATALOGUE, KINDS


@pytest.mark.parametrize("name", CATALOGUE)
def test_config_written_as_json_and_read_is_itself(name):
    config = CATALOGUE[name]
    values = json.loads(json.dumps(config_values(config)))
    assert model_config(KINDS[type(config)], values) == config


@pytest.mark.parametrize("kind", MODELS)
def test_build_makes_the_model_of_its_kind(kind):
    model = build(kind, {"input_size": 3, "output_size": 2})
    assert type(model) is MODELS[kind][1]
    assert (model.input_size, model.output_size) == (3, 2)


def test_build_follows_every_value():
    values = {"input_size": 3, "output_size": 2, "memory_size": 9, "controller": {"kind": "lstm", "hidden_size": 7}}
    model = build("dnc", values)
    assert isinstance(model, DNC)
    assert model.config == DNCConfig(3, 2, memory_size=9, controller=LSTMConfig(hidden_size=7))


def test_controller_is_built_from_a_table_or_kept():
    sizes = {"input_size": 3, "output_size": 2}
    from_table = model_config("rnn", sizes | {"controller": {"kind": "feed-forward", "hidden_size": 4}})
    assert from_table == model_config("rnn", sizes | {"controller": FeedForwardConfig(hidden_size=4)})


@pytest.mark.parametrize("kind", MODELS)
def test_embedding_is_built_from_a_table_or_kept(kind):
    sizes = {"input_size": 1, "output_size": 2}
    from_table = model_config(kind, sizes | {"embedding": {"vocabulary_size": 9, "size": 4}})
    assert from_table.embedding == EmbeddingConfig(9, 4)
    assert from_table == model_config(kind, sizes | {"embedding": EmbeddingConfig(9, 4)})
    assert model_config(kind, sizes | {"embedding": None}) == model_config(kind, sizes)


@pytest.mark.parametrize(
    ("embedding", "message"),
    [
        ("words", "model.embedding: expected EmbeddingConfig or NoneType, got 'words'"),
        ({"size": 4}, "model.embedding: key 'vocabulary_size' is missing"),
        ({"vocabulary_size": 9, "size": 4, "padding": 0}, "model.embedding: unknown key 'padding'; known keys are "),
        ({"vocabulary_size": 9.5, "size": 4}, "model.embedding.vocabulary_size: expected int, got 9.5"),
        ({"vocabulary_size": 9, "size": 0}, "EmbeddingConfig.size must be at least 1, got 0"),
        ({"vocabulary_size": 9, "size": 4}, "DNCConfig.input_size must be 1 with an embedding, got 3"),
    ],
)
def test_embedding_that_cannot_be_names_key_value_and_expectation(embedding, message):
    with pytest.raises(ConfigError, match=message):
        model_config("dnc", {"input_size": 3, "output_size": 2, "embedding": embedding})


def test_values_given_are_left_unchanged():
    values = {
        "input_size": 1,
        "output_size": 2,
        "controller": {"kind": "lstm"},
        "embedding": {"vocabulary_size": 9, "size": 4},
    }
    before = copy.deepcopy(values)
    model_config("rnn", values)
    assert values == before


@pytest.mark.parametrize("kind", ["gru", "DNC", "", None, ["dnc"]])
def test_kind_unknown_names_it_and_the_known_ones(kind):
    with pytest.raises(ConfigError) as error:
        build(kind, {"input_size": 3, "output_size": 2})
    assert str(error.value) == f"model.kind: expected one of {', '.join(MODELS)}, got {kind!r}"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"output_size": 2}, "model: key 'input_size' is missing"),
        ({"input_size": 3, "output_size": 2, "slots": 9}, "model: unknown key 'slots'"),
        ({"input_size": "3", "output_size": 2}, "model.input_size: expected int, got '3'"),
        ({"input_size": 3, "output_size": 0}, "DNCConfig.output_size must be at least 1, got 0"),
        ({"input_size": 3, "output_size": 2, "clip": float("nan")}, "DNCConfig.clip must be at least 0, got nan"),
        ({"input_size": 3, "output_size": 2, "output_activation": "relu"}, "model.output_activation: expected one of"),
        ({"input_size": 3, "output_size": 2, "controller": "lstm"}, "model.controller: expected .*, got 'lstm'"),
        ({"input_size": 3, "output_size": 2, "controller": {}}, "model.controller.kind: expected .*, got None"),
        (
            {"input_size": 3, "output_size": 2, "controller": {"kind": "lstm", "hidden_size": 1.5}},
            "model.controller.hidden_size: expected int, got 1.5",
        ),
    ],
)
def test_values_that_make_no_config_name_key_value_and_expectation(values, message):
    with pytest.raises(ConfigError, match=message):
        model_config("dnc", values)
