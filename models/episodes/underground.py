"""The London Underground as a graph: stations, and between them lines with a compass direction."""

import functools
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

DATA = Path(__file__).parent / "data" / "london_underground.json"
"""Stations, lines and connections; the file names its source and its terms."""

DIRECTIONS = ("north", "north-east", "east", "south-east", "south", "south-west", "west", "north-west")

Triples = Iterable[Sequence[int]]


class Underground(NamedTuple):
    """A map: `edges` has the numbers of a station, of a line in a direction, and of the next station."""

    stations: tuple[str, ...]
    """the name of each station"""
    ways: tuple[str, ...]
    """a line in a direction, such as "Central, east"; those out of a station are all different"""
    edges: NDArray[np.int64]
    """[edges, 3], every connection both ways"""
    places: NDArray[np.float64]
    """[stations, 2], the latitude and longitude of each station in degrees"""


@functools.cache
def underground(zone_1: bool = False) -> Underground:
    """Return the whole map, or the connections in zone 1: all its stations but Tower Gateway, which has none."""
    data = json.loads(DATA.read_text(encoding="utf-8"))
    edges = _edges(data)
    if zone_1:
        edges = [edge for edge in edges if all(data["stations"][end][3] < 2 for end in (edge[0], edge[2]))]
    stations = sorted({source for source, _, _ in edges})
    ways = sorted({way for _, way, _ in edges})
    numbered = [[stations.index(a), ways.index(way), stations.index(b)] for a, way, b in edges]
    return Underground(
        stations=tuple(data["stations"][station][0] for station in stations),
        ways=tuple(f"{data['lines'][line]}, {DIRECTIONS[direction]}" for line, direction in ways),
        edges=np.array(numbered),
        places=np.array([data["stations"][station][1:3] for station in stations]),
    )


def directions(here: Sequence[float], there: Sequence[Sequence[float]]) -> list[int]:
    """Return the direction of each place as seen from here, no two the same. Places: (latitude, longitude) in degrees.

    Each place takes the nearest of the eight directions; of several with the same one, the best fit has it, and the
    others take the nearest free one. There are at most eight places.
    """
    bearings = [_bearing(here, place) for place in there]
    free = list(range(8))

    def gap(place: int, direction: int) -> float:
        return abs((bearings[place] - 45 * direction + 180) % 360 - 180)

    def nearest(place: int) -> int:
        return min(free, key=lambda direction: gap(place, direction))

    taken = {}
    for place in sorted(range(len(there)), key=lambda place: gap(place, nearest(place))):
        taken[place] = nearest(place)
        free.remove(taken[place])
    return [taken[place] for place in range(len(there))]


def names(triples: Triples, chart: Underground) -> tuple[dict[int, str], dict[int, str]]:
    """Return the names of stations and ways by their labels in `triples`, the edges of a map under labels of any kind.

    The labels carry no meaning, but the map has no symmetry: its neighbours identify each station and way.
    """
    stations, ways = _surroundings(chart.edges.tolist())
    station_at = {surroundings: chart.stations[station] for station, surroundings in stations.items()}
    way_at = {surroundings: chart.ways[way] for way, surroundings in ways.items()}
    labels, way_labels = _surroundings(triples)
    return (
        {label: station_at[surroundings] for label, surroundings in labels.items()},
        {label: way_at[surroundings] for label, surroundings in way_labels.items()},
    )


def _surroundings(triples: Triples) -> tuple[dict[int, int], dict[int, int]]:
    """Return for each node and each kind of edge a number that identifies its surroundings, up to four moves away."""
    triples = list(triples)
    nodes = dict.fromkeys((end for source, _, destination in triples for end in (source, destination)), 0)
    kinds = dict.fromkeys((kind for _, kind, _ in triples), 0)
    for _ in range(4):
        around: dict[int, list[tuple[int, ...]]] = {node: [] for node in nodes}
        among: dict[int, list[tuple[int, ...]]] = {kind: [] for kind in kinds}
        for source, kind, destination in triples:
            around[source].append((0, kinds[kind], nodes[destination]))
            around[destination].append((1, kinds[kind], nodes[source]))
            among[kind].append((nodes[source], nodes[destination]))
        nodes = {node: hash((nodes[node], *sorted(seen))) for node, seen in around.items()}
        kinds = {kind: hash((kinds[kind], *sorted(seen))) for kind, seen in among.items()}
    return nodes, kinds


def _edges(data: dict[str, Any]) -> list[tuple[int, tuple[int, int], int]]:
    """Return the edges of the whole map: station, (line, direction), next station."""
    beside: dict[tuple[int, int], list[int]] = {}
    for one, other, line in data["connections"]:
        beside.setdefault((one, line), []).append(other)
        beside.setdefault((other, line), []).append(one)
    places = [(latitude, longitude) for _, latitude, longitude, _ in data["stations"]]
    return [
        (station, (line, direction), neighbour)
        for (station, line), neighbours in beside.items()
        for neighbour, direction in zip(
            neighbours, directions(places[station], [places[other] for other in neighbours]), strict=True
        )
    ]


def _bearing(here: Sequence[float], there: Sequence[float]) -> float:
    """Return the direction of a nearby place, in degrees clockwise from north."""
    north, east = there[0] - here[0], (there[1] - here[1]) * math.cos(math.radians(here[0]))
    return math.degrees(math.atan2(east, north)) % 360
