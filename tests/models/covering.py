"""A few models of the table that have every value of every option: for a law whose proof takes seconds a model.

Values of an option that all kinds of models have, and of a cell's, are covered by any kind; each kind of model has each
kind of cell.
"""

import dataclasses
import functools
from collections.abc import Iterator, Set
from typing import Any

from tests.models.catalogue import CATALOGUE, KINDS

SHARED = set.intersection(*({field.name for field in dataclasses.fields(kind)} for kind in KINDS))
"""The options that all kinds of models have."""

COST = {"dnc": 4, "ntm": 3, "rnn": 1}
"""How long a graph of each kind takes, about."""


def covering() -> list[str]:
    """Return the names of models that cover what all do, in the table's order."""
    chosen: list[str] = []
    while missing := set().union(*map(covered, CATALOGUE)).difference(*map(covered, chosen)):
        chosen.append(max(CATALOGUE, key=lambda name: len(covered(name) & missing) / COST[kind_of(name)]))
    for name in list(chosen):
        if covered(name) <= set().union(*(covered(other) for other in chosen if other != name)):
            chosen.remove(name)
    return [name for name in CATALOGUE if name in chosen]


def kind_of(name: str) -> str:
    return KINDS[type(CATALOGUE[name])]


@functools.cache
def covered(name: str) -> Set[str]:
    """Return what a model of the table covers, such as `dnc.masking=True`, `lstm.peepholes=True`, `dnc with lstm`.

    Heads go through loops of their own with every kind of links, and in every order.
    """
    config: Any = CATALOGUE[name]
    found = {*options(kind_of(name), kind_of(name), config)}
    if kind_of(name) != "rnn":
        way = config.links if kind_of(name) == "dnc" else config.order
        found |= {f"{way}, {size(config.read_heads)} read heads", f"{way}, {size(config.write_heads)} write heads"}
    if kind_of(name) == "ntm" and config.shift_width > config.memory_size:
        found.add("shifts beyond all locations")
    if kind_of(name) == "dnc" and config.links == "sparse" and config.links_per_slot == config.memory_size:
        found.add("sparse links to all locations")
    return found


def options(kind: str, owner: str, config: Any) -> Iterator[str]:
    """Yield what the options of a model, or of a part of it, cover; kind: of the model; owner: of the part."""
    for field in dataclasses.fields(config):
        value, holder = getattr(config, field.name), "model" if owner == kind and field.name in SHARED else owner
        for part in value if isinstance(value, tuple) else (value,):
            if dataclasses.is_dataclass(part):
                named = getattr(part, "kind", field.name)
                yield f"{kind} with {named}"
                yield from options(kind, named, part)
            elif field.name != "kind":
                yield f"{holder}.{field.name}={size(part) if isinstance(part, int | float) else part}"


def size(number: float) -> float | str:
    """Return 0 and 1, which switch something off or have axes of their own, and other numbers as one."""
    return number if number in (0, 1) else "more"
