"""The London Underground: well-known stations and connections, directions by hand, and tasks on it."""

import json

import numpy as np
import pytest

from models.episodes.maps import london, routes
from models.episodes.underground import DATA, directions, names, underground
from tests.training.tasks.situations import generator
from tests.training.tasks.triples import read
from training.tasks import GraphTraversal, ShortestPath


@pytest.fixture(params=[False, True], ids=["london", "zone 1"])
def chart(request):
    return underground(zone_1=request.param)


def named_edges(chart):
    """Return the edges by names: station, way, next station."""
    return [(chart.stations[source], chart.ways[way], chart.stations[to]) for source, way, to in chart.edges.tolist()]


def reached(chart, station):
    """Return the stations that can be reached from a station."""
    found, waiting = {station}, [station]
    while waiting:
        here = waiting.pop()
        beside = {to for source, _, to in chart.edges.tolist() if source == here}
        waiting += beside - found
        found |= beside
    return found


def labelled(chart, seed=0):
    """Return the edges under random labels, in random order."""
    random = np.random.default_rng(seed)
    stations, ways = (random.choice(1000, len(each), replace=False) for each in (chart.stations, chart.ways))
    source, way, to = chart.edges.T
    return stations, ways, random.permutation(np.stack([stations[source], ways[way], stations[to]], 1))


# The data


def test_data_name_their_source_and_their_terms():
    data = json.loads(DATA.read_text(encoding="utf-8"))
    assert "commons.wikimedia.org/wiki/London_Underground_geographic_maps/CSV" in data["source"]
    assert "Attribution-ShareAlike" in data["terms"]
    assert len(data["connections"]) == 406


def test_whole_map_has_302_stations_and_812_edges():
    chart = underground()
    assert len(chart.stations) == len(set(chart.stations)) == 302
    assert chart.edges.shape == (812, 3)


def test_zone_1_has_63_stations_and_126_connections():
    chart = underground(zone_1=True)
    assert len(chart.stations) == 63
    assert chart.edges.shape == (252, 3)
    assert {"Oxford Circus", "Bank", "Vauxhall", "Earl's Court"} <= set(chart.stations)
    assert not {"Camden Town", "Tower Gateway", "Heathrow Terminal 4"} & set(chart.stations)


@pytest.mark.parametrize(
    "edge",
    [
        ("Oxford Circus", "Central, west", "Bond Street"),
        ("Bond Street", "Central, east", "Oxford Circus"),
        ("Oxford Circus", "Victoria, south", "Green Park"),
        ("Waterloo", "Waterloo & City, north-east", "Bank"),
        ("King's Cross St. Pancras", "Northern, east", "Angel"),
        ("Covent Garden", "Piccadilly, south-west", "Leicester Square"),
    ],
)
def test_edge_that_everybody_knows_is_on_both_maps(edge):
    assert edge in named_edges(underground())
    assert edge in named_edges(underground(zone_1=True))


def test_zone_1_keeps_the_edge_names_of_the_map():
    assert set(named_edges(underground(zone_1=True))) < set(named_edges(underground()))


# The graph


def test_every_connection_goes_both_ways(chart):
    lines = [(source, way.split(",")[0], to) for source, way, to in named_edges(chart)]
    assert sorted(lines) == sorted((to, line, source) for source, line, to in lines)


def test_every_station_can_be_reached(chart):
    assert reached(chart, 0) == set(range(len(chart.stations)))


def test_edges_out_of_a_station_are_all_different(chart):
    ways = [(source, way) for source, way, _ in chart.edges.tolist()]
    assert len(set(ways)) == len(ways)


def test_shortest_ways_are_those_of_a_search_move_by_move(chart):
    graph = london(zone_1=len(chart.stations) < 302)
    moves = routes(graph, limit=4).moves
    for start in (0, 17, 40):
        seen, front = {start: 0}, {start}
        for length in range(1, 5):
            front = {to for here in front for _, to in graph.outgoing[here]} - set(seen)
            seen |= dict.fromkeys(front, length)
        assert {end: length for end, length in enumerate(moves[start].tolist()) if length >= 0} == seen


# Directions


def test_directions_of_places_around_are_the_eight_clockwise_from_north():
    around = [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)]
    assert directions((0, 0), around) == [0, 1, 2, 3, 4, 5, 6, 7]


def test_direction_accounts_for_shorter_degrees_in_the_north():
    assert directions((0.0, 0.0), [(0.2, 0.3)]) == [1]
    assert directions((75.0, 0.0), [(75.2, 0.3)]) == [0]


def test_direction_of_two_places_goes_to_the_best_fit():
    assert directions((0, 0), [(1, 0.3), (1, 0.1)]) == [1, 0]
    assert directions((0, 0), [(1, -0.1), (1, -0.3)]) == [0, 7]


def test_direction_of_a_third_place_is_the_nearest_left():
    assert directions((0, 0), [(1, 0.1), (1, 0.3), (1, -0.2)]) == [0, 1, 7]


# Names


def test_names_are_found_under_any_labels(chart):
    stations, ways, triples = labelled(chart)
    found = names(triples.tolist(), chart)
    assert found == (
        dict(zip(stations.tolist(), chart.stations, strict=True)),
        dict(zip(ways.tolist(), chart.ways, strict=True)),
    )


# Tasks


def test_traversal_of_london_describes_all_under_new_labels():
    episode = GraphTraversal(map="london", moves=(7, 7)).sample(generator(), 2)
    (first, _), (second, questions) = read(episode, 0), read(episode, 1)
    assert len(first) == len(second) == 812
    assert len({source for source, _, _ in first}) == 302
    assert first[0][0] not in {source for source, _, to in second if to == first[0][2]}
    assert len(questions[0].answer) == 7
    assert set(questions[0].answer) <= set(second)


def test_text_of_a_path_through_london_has_names():
    task = GraphTraversal(map="london-zone-1", moves=(3, 3))
    lines = task.render(task.sample(generator(), 1)).splitlines()
    assert lines[0] == "description: 252 triples"
    here, *moves = lines[2].removeprefix("answer: ").replace("]-> ", " -[").split(" -[")
    for way, to in zip(moves[::2], moves[1::2], strict=True):
        assert (here, way, to) in named_edges(underground(zone_1=True))
        here = to


def test_shortest_path_in_zone_1_is_unique():
    task = ShortestPath(map="london-zone-1", moves=(4, 4))
    description, (question,) = read(task.sample(generator(), 1))
    paths = [[step] for step in description if step[0] == question.query[0][0]]
    for _ in range(3):
        paths = [[*path, step] for path in paths for step in description if step[0] == path[-1][2]]
    assert [path for path in paths if path[-1][2] == question.query[0][2]] == [question.answer]
