"""Samples of the tasks, in NumPy: the same encoding as that of `training.tasks`, for those who have no torch."""

from collections.abc import Mapping
from typing import Any

from models.config import ConfigError, from_values
from models.episodes.babi import Babi
from models.episodes.base import Source, is_possible
from models.episodes.copy_recall import CopyRecall
from models.episodes.copying import Copy, RepeatCopy
from models.episodes.dyck import DyckWords
from models.episodes.graphs import FamilyTree, GraphTraversal, ShortestPath
from models.episodes.ngrams import NGrams
from models.episodes.priority_sort import PrioritySort
from models.episodes.recall import AssociativeRecall, KeyValueRecall

SOURCES: dict[str, type[Source]] = {
    source.name: source
    for source in (
        Copy,
        RepeatCopy,
        AssociativeRecall,
        CopyRecall,
        NGrams,
        PrioritySort,
        KeyValueRecall,
        DyckWords,
        GraphTraversal,
        ShortestPath,
        FamilyTree,
        Babi,
    )
}
"""The tasks with samples, by name."""


def source_of(task: Mapping[str, Any], input_size: int, output_size: int) -> Source | None:
    """Return the source of a task as a manifest has it, or None where its sequences are not known or do not fit.

    task: its name and options. input_size, output_size: of the model that has it.
    """
    options = dict(task)
    kind = SOURCES.get(str(options.pop("name", None)))
    if kind is None:
        return None
    try:
        source = from_values(kind, options, "task")
    except ConfigError:
        return None
    fits = (source.input_size, source.output_size) == (input_size, output_size) and is_possible(source)
    return source if fits else None
