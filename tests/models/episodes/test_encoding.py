"""The encoding of samples is that of training: episodes drawn there, encoded again here from what they show."""

import dataclasses
from collections.abc import Callable
from typing import Any, get_type_hints

import numpy as np
import pytest

from models.episodes import SOURCES, source_of
from models.episodes.base import Sample, Source, choose, draw
from tests.models.episodes.encoding import differences, drawn, episode_of
from tests.models.episodes.test_babi import VOCABULARY
from training.tasks import TASKS, Episode, Task, build_task

Again = Callable[[Any, np.ndarray, Episode], Sample]


def copied(source: Any, inputs: np.ndarray, _: Episode) -> Sample:
    length, first = (len(inputs) - 2) // 2, int(source.flags == "start-and-end")
    return source.encode(inputs[first : first + length, : source.bits])


def repeated(source: Any, inputs: np.ndarray, _: Episode) -> Sample:
    length = int(inputs[:, source.bits + 1].nonzero()[0][0]) - 1
    return source.encode(inputs[1 : length + 1, : source.bits], (len(inputs) - 3) // length - 1)


def recalled(source: Any, inputs: np.ndarray, _: Episode) -> Sample:
    length, starts = source.item_length, inputs[:, source.bits].nonzero()[0]
    items = np.stack([inputs[start + 1 : start + 1 + length, : source.bits] for start in starts])
    asked = int(inputs[:, source.bits + 1].nonzero()[0][0]) + 1
    matches = (items == inputs[asked : asked + length, : source.bits]).all((1, 2))
    return source.encode(items, int(matches.argmax()))


def in_turn(source: Any, inputs: np.ndarray, episode: Episode) -> Sample:
    first, second = source.parts()
    bits, end = source.bits, 2 * int(inputs[:, source.bits + 1].argmax())
    copy = copied(first, inputs[:end, : bits + 2], episode)
    return source.in_turn(copy, recalled(second, np.delete(inputs[end:], [bits, bits + 1], 1), episode))


def sorted_again(source: Any, inputs: np.ndarray, _: Episode) -> Sample:
    end = int(inputs[:, source.bits + 1].argmax())
    return source.encode(inputs[:end, : source.bits + 1])


def looked_up(source: Any, inputs: np.ndarray, _: Episode) -> Sample:
    end = int(inputs[:, 2 * source.bits].argmax())
    return source.encode(inputs[:end, : 2 * source.bits], inputs[end + 1 :, : source.bits])


def predicted(source: Any, inputs: np.ndarray, episode: Episode) -> Sample:
    return source.encode(np.concatenate([inputs[:1], episode.targets[:, 0].numpy()]))


def judged(source: Any, inputs: np.ndarray, _: Episode) -> Sample:
    return source.encode(inputs[:, 0].astype(int))


AGAIN: list[tuple[dict[str, Any], Again]] = [
    ({"name": "copy", "bits": 3, "length": [1, 9]}, copied),
    ({"name": "copy", "bits": 3, "length": [1, 9], "flags": "end"}, copied),
    ({"name": "repeat-copy", "bits": 3, "length": [1, 5], "repeats": [1, 10]}, repeated),
    ({"name": "associative-recall", "bits": 4, "items": [2, 6]}, recalled),
    ({"name": "copy-recall", "bits": 4, "length": [1, 5]}, in_turn),
    ({"name": "priority-sort", "items": [1, 20], "share": 0.5}, sorted_again),
    ({"name": "key-value", "bits": 4, "pairs": [1, 6], "overwrites": [0, 5]}, looked_up),
    ({"name": "ngrams", "order": 3, "length": [4, 40]}, predicted),
    ({"name": "dyck", "kinds": 2, "length": [1, 8]}, judged),
]

TRIPLES: list[dict[str, Any]] = [
    {"name": "graph-traversal", "queries": [1, 3]},
    {"name": "shortest-path", "map": "london-zone-1"},
    {"name": "family-tree"},
]
STORIES = {"name": "babi", "directory": "none", "vocabulary": VOCABULARY}
VALUES = [*(row[0] for row in AGAIN), *TRIPLES, STORIES]


def source(task: Task) -> Source:
    found = source_of({"name": task.name, **task.options}, task.model_values["input_size"], size_of_outputs(task))
    assert found is not None
    return found


def size_of_outputs(task: Task) -> int:
    size: int = task.model_values["output_size"]
    return size


@pytest.mark.parametrize(
    ("values", "again"), AGAIN, ids=[f"{index} {row[0]['name']}" for index, row in enumerate(AGAIN)]
)
def test_episode_of_training_is_encoded_the_same_here(values, again):
    task = build_task(values)
    for episode in drawn(task):
        sample = again(source(task), episode.inputs[:, 0].numpy(), episode)
        assert differences(sample, episode) == []


@pytest.mark.parametrize("values", VALUES, ids=lambda values: values["name"])
def test_sample_is_answered_right_by_its_own_targets(values):
    task = build_task(values)
    own = source(task)
    for seed in range(10):
        episode = episode_of(draw(own, seed, choose(own, seed, {})))
        assert task.errors(100 * episode.targets - 50, episode).item() < 1e-6
        assert task.asked(episode).item() > 0


@pytest.mark.parametrize("name", SOURCES)
def test_source_has_the_options_of_the_task_in_training(name):
    def options(kind: type) -> dict[str, Any]:
        hints = get_type_hints(kind)
        return {each.name: (hints[each.name], each.default) for each in dataclasses.fields(kind)}

    assert options(SOURCES[name]) == options(TASKS[name])


@pytest.mark.parametrize("values", VALUES, ids=lambda values: values["name"])
def test_sample_has_phases_labels_and_sizes_of_its_steps(values):
    own = source(build_task(values))
    for seed in range(10):
        chosen = choose(own, seed, {})
        sample = draw(own, seed, chosen)
        edges = [edge for phase in sample.phases for edge in (phase.start, phase.stop)]
        assert edges == sorted(edges)
        assert (edges[0], edges[-1]) == (0, len(sample.inputs))
        assert len(sample.inputs) <= own.most_steps(chosen)
        assert sample.labels is None or len(sample.labels) == len(sample.inputs)
        assert values in (*TRIPLES, STORIES) or len(sample.inputs) == own.most_steps(chosen)
