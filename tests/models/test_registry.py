"""The table of models, and configs from plain values and back."""

import copy
import json
import re
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from models.cells import FeedForwardConfig, LSTMConfig
from models.config import ConfigError
from models.contract import MemoryModel, ModelConfig
from models.dnc import DNC, DNCConfig
from models.embedding import EmbeddingConfig
from models.laws import LawError
from models.registry import MODELS, build, config_values, kind_of, model_config, register_model
from models.rnn import RNN, RNNConfig
from tests.models.broken import Leaky, LeakyConfig, Slots, Unused
from tests.models.catalogue import CATALOGUE, KINDS

SIZES = {"input_size": 3, "output_size": 2}


@pytest.fixture(autouse=True)
def models_as_before():
    """Restore the registered models after each test."""
    before = dict(MODELS)
    yield
    MODELS.clear()
    MODELS.update(before)


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
    expected = f"model.kind: expected one of {', '.join(MODELS)}, got {kind!r}"
    assert str(error.value) == f"{expected}; --models FILE names the Python file of others"


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


# Models of a user's own


def test_registered_class_is_known_until_it_is_redefined():
    def defined():
        @register_model("mine", LeakyConfig)
        class Mine(Leaky):
            pass

        return Mine

    first = defined()
    model = build("mine", SIZES | {"size": 5})
    assert (type(model), model.size, kind_of(model)) == (first, 5, "mine")
    second = defined()
    assert MODELS["mine"] == (LeakyConfig, second)
    assert second is not first


def test_kind_of_another_class_is_refused():
    for kind, known in (("rnn", "RNN"), ("leaky", "Leaky")):
        register_model("leaky", LeakyConfig)(Leaky)
        message = f"model {kind!r}: that is the kind of {known} already; give Slots another"
        with pytest.raises(ConfigError, match=re.escape(message)):
            register_model(kind, LeakyConfig)(Slots)
    assert (MODELS["rnn"], MODELS["leaky"]) == ((RNNConfig, RNN), (LeakyConfig, Leaky))


@dataclass(frozen=True)
class Elsewhere:
    input_size: int
    output_size: int


class Undecorated(ModelConfig):
    size: int = 4


@dataclass(frozen=True)
class Named(ModelConfig):
    kind: str = "mine"


class HalfDone(MemoryModel[Any]):
    memory_size = None


@pytest.mark.parametrize(
    ("kind", "config", "model", "message"),
    [
        ("onnx", LeakyConfig, Leaky, "model 'onnx': it is the kind of imported graphs; give Leaky another"),
        ("", LeakyConfig, Leaky, "Leaky: expected the kind of a model, such as 'leaky', got ''"),
        (None, LeakyConfig, Leaky, "Leaky: expected the kind of a model, such as 'leaky', got None"),
        ("mine", LeakyConfig, torch.nn.GRU, "model 'mine': GRU is no model: derive it from MemoryModel, of models."),
        ("mine", LeakyConfig, 3, "model 'mine': 3 is no model: derive it from MemoryModel, of models.contract"),
        ("mine", LeakyConfig, HalfDone, "model 'mine': HalfDone must define _step, initial_state"),
        ("mine", Elsewhere, Leaky, "model 'mine': its config Elsewhere must be derived from ModelConfig, of models."),
        ("mine", {}, Leaky, "model 'mine': its config {} must be derived from ModelConfig, of models.contract"),
        ("mine", Undecorated, Leaky, "its config Undecorated is no dataclass: put @dataclass(frozen=True) above it"),
        ("mine", Named, Leaky, "its config Named has an option 'kind', which names the model: rename it"),
    ],
)
def test_class_that_is_no_model_is_refused_with_reason(kind, config, model, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        register_model(kind, config)(model)
    assert kind not in MODELS


def test_own_model_that_breaks_a_law_is_not_built():
    register_model("unused", UnusedConfig)(TakesConfig)
    with pytest.raises(LawError, match=r"TakesConfig breaks the law that a model can be trained: .*spare\.weight"):
        build("unused", SIZES)


@dataclass(frozen=True)
class UnusedConfig(LeakyConfig):
    dtype: torch.dtype | None = None
    controller: str | None = None
    sizes: dict[int, int] = field(default_factory=dict)


class TakesConfig(Unused):
    def __init__(self, config: LeakyConfig) -> None:
        Leaky.__init__(self, config)
        self.spare = torch.nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dtype": torch.float32}, "UnusedConfig cannot be written to a manifest and read again: .* not JSON"),
        ({"sizes": {1: 2}}, r"UnusedConfig is another once it was written to a manifest and read: .*'1': 2"),
        ({"controller": "gru"}, "UnusedConfig.controller must be a cell of models.cells, got 'gru': rename it"),
        ({"memory_size": 3}, "UnusedConfig.memory_size is 3, but that of TakesConfig is None: both are the number of"),
    ],
)
def test_config_that_no_manifest_can_hold_is_refused(values, message):
    register_model("unused", UnusedConfig)(TakesConfig)
    with pytest.raises(ConfigError, match=message):
        build("unused", SIZES | values)
