"""Samples of models: of their recording, of their task, and by their card."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from app.catalogue import InputFormat
from app.errors import InvalidRequest
from app.sampling import sample_of
from tests.app.test_catalogue import GRAPH, loaded

PARTS: list[dict[str, Any]] = [
    {"name": "token", "shape": [1], "range": None, "whole": [0, 4]},
    {"name": "wave", "shape": [2, 3], "range": [-5, -3], "whole": None},
    {"name": "any", "shape": [1], "range": None, "whole": None},
]


def model(task: dict[str, Any], kind: str = "rnn", config: dict[str, Any] | None = None, **sizes: int) -> Any:
    made = loaded(kind, config or {})
    manifest = replace(made.manifest, task=task, **{"input_size": 4, "output_size": 2, **sizes})
    return replace(made, manifest=manifest, inputs=InputFormat(manifest.input_size))


def test_sample_of_a_known_task_says_what_memory_must_keep():
    copy = model({"name": "copy", "bits": 2, "length": 5})
    copy = replace(copy, spec=replace(copy.spec, memory_size=8))
    document = sample_of(copy, 1, {}).document()
    assert (document["drawn_from"], document["seed"]) == ("task", 1)
    assert document["fits"] == {"of": "vectors", "needed": 5, "memory_size": 8}
    [length] = document["settings"]
    assert (length["value"], length["trained"], length["greatest"], length["fits"]) == (5, (5, 5), 499, 8)


def test_sample_of_a_model_without_memory_fits_nothing():
    copy = model({"name": "copy", "bits": 2})
    copy = replace(copy, spec=replace(copy.spec, memory_size=None))
    document = sample_of(copy, 1, {}).document()
    assert (document["fits"], document["settings"][0]["fits"]) == (None, None)


@pytest.mark.parametrize("task", [{"name": "own"}, {"name": "copy", "bits": 3}, {"name": "copy", "colour": "red"}])
def test_unknown_task_gives_bits_of_the_card(task):
    document = sample_of(model(task), 1, {"length": "7"}).document()
    assert (document["drawn_from"], document["targets"], document["inputs"].shape) == ("card", None, (7, 4))
    assert set(document["inputs"].flat) == {0, 1}


def test_model_without_a_task_gets_numbers_within_one():
    inputs = sample_of(model({"name": "none"}), 1, {}).sample.inputs
    assert (np.abs(inputs) <= 1).all()
    assert len(set(inputs.flat)) == inputs.size


def test_unknown_model_of_tokens_gets_some_of_its_vocabulary():
    tokens = replace(model({"name": "words"}, input_size=1), inputs=InputFormat(1, vocabulary_size=7))
    document = sample_of(tokens, 1, {"length": "200"}).document()
    assert document["inputs"].dtype == np.int64
    assert set(document["inputs"].flat) == set(range(7))
    assert document["labels"] == tuple(document["pattern"])


def test_imported_graph_gets_each_part_within_its_range():
    graph = model({"name": "none"}, "onnx", {"graph": GRAPH | {"inputs": PARTS}}, input_size=8)
    inputs = sample_of(graph, 1, {"length": "300"}).sample.inputs
    assert set(inputs[:, 0]) == set(range(5))
    assert (inputs[:, 1:7].min() >= -5, inputs[:, 1:7].max() <= -3) == (True, True)
    assert -1 <= inputs[:, 7].min() < inputs[:, 7].max() <= 1


def test_part_of_any_range_gets_finite_whole_numbers():
    parts = [{"name": "id", "shape": [4], "range": None, "whole": [-(2.0**63), 2.0**63]}]
    graph = model({"name": "none"}, "onnx", {"graph": GRAPH | {"inputs": parts}})
    inputs = sample_of(graph, 1, {}).sample.inputs
    assert (inputs == np.rint(inputs)).all()
    assert np.abs(inputs).max() <= 2**24


def test_recording_comes_before_the_task_and_has_no_sizes():
    recording = np.ones((3, 4), np.float32)
    recorded = replace(model({"name": "copy", "bits": 2}), sample=recording)
    sample = sample_of(recorded, 1, {})
    assert (sample.drawn_from, sample.sample.inputs is recording, sample.settings) == ("recording", True, [])
    with pytest.raises(InvalidRequest, match="length: expected no size: a recording is as it is, got 3"):
        sample_of(recorded, 1, {"length": "3"})
