"""Samples of graphs and families, read from their layout alone, and as training writes them."""

from itertools import pairwise

import pytest

from models.config import ConfigError
from models.episodes import SOURCES
from models.episodes.base import SizeError, choose, draw
from models.episodes.families import FIRST_RELATION, RELATIONS
from models.episodes.graphs import FamilyTree, GraphTraversal, ShortestPath
from tests.models.episodes.encoding import episode_of
from tests.training.tasks.test_family_tree import related
from tests.training.tasks.test_graphs import shortest_paths
from tests.training.tasks.triples import read
from training import tasks

LONDON = {"map": "london", "moves": "5"}


def sampled(source, seed=1, **asked):
    return draw(source, seed, choose(source, seed, {name: str(value) for name, value in asked.items()}))


def labels_of(facts, route):
    """Return the triples of a route that a graph in facts has."""
    nodes, edges = facts["graph"]["nodes"], facts["graph"]["edges"]
    taken = [edges[number] for number in route["edges"]]
    return [(nodes[edge["from"]]["label"], edge["label"], nodes[edge["to"]]["label"]) for edge in taken]


@pytest.mark.parametrize("source", [GraphTraversal(), ShortestPath()], ids=lambda source: source.name)
@pytest.mark.parametrize("seed", range(4))
def test_graph_and_routes_are_those_of_the_inputs_and_targets(source, seed):
    sample = sampled(source, seed, queries=3)
    description, questions = read(episode_of(sample))
    routes = sample.facts["routes"]
    assert description == labels_of(sample.facts, {"edges": range(len(description))})
    assert [question.answer for question in questions] == [labels_of(sample.facts, route) for route in routes]
    assert all(end == start for route in routes for (*_, end), (start, *_) in pairwise(labels_of(sample.facts, route)))


def test_walk_is_asked_by_its_start_and_its_edges():
    sample = sampled(GraphTraversal(), moves=4, nodes=30)
    _, [question] = read(episode_of(sample))
    assert question.query == [(question.answer[0][0], question.answer[0][1], None)] + [
        (None, edge, None) for _, edge, _ in question.answer[1:]
    ]
    assert len({*sample.facts["routes"][0]["nodes"]}) == 5


@pytest.mark.parametrize("seed", range(4))
def test_shortest_path_is_the_only_one_of_its_length(seed):
    description, [question] = read(episode_of(sampled(ShortestPath(), seed, moves=3)))
    [(start, _, end)] = question.query
    assert shortest_paths(description, start, end) == [question.answer]
    assert (len(question.answer), question.planning) == (3, 10)


@pytest.mark.parametrize("source", [GraphTraversal, ShortestPath, FamilyTree])
def test_planning_per_triple_is_in_sample_and_limit(source):
    planner = source(planning_per_triple=1.5)
    sample = sampled(planner, planning=3, queries=2)
    description, questions = read(episode_of(sample))
    assert [question.planning for question in questions] == [3 + round(1.5 * len(description))] * 2
    sizes = choose(planner, 1, {"planning": "3", "queries": "2"})
    assert len(sample.inputs) <= planner.most_steps(sizes) <= 2 * len(sample.inputs)


@pytest.mark.parametrize("source", [GraphTraversal, ShortestPath, FamilyTree])
def test_planning_per_triple_below_zero_is_refused(source):
    with pytest.raises(ConfigError, match="planning_per_triple must be 0 to 100 steps, got -1"):
        source(planning_per_triple=-1)


def test_graph_without_so_long_a_path_asks_for_its_longest():
    sample = sampled(ShortestPath(), nodes=3, moves=20)
    assert 1 <= len(sample.facts["routes"][0]["edges"]) < 3


def test_underground_has_the_names_that_training_finds():
    sample = sampled(GraphTraversal(), **LONDON)
    shown = tasks.GraphTraversal(map="london").render(episode_of(sample)).splitlines()
    assert shown[0] == "description: 812 triples"
    answers = sample.labels[-5:]
    assert shown[2] == f"answer: {answers[0]}" + "".join(answer[answer.index(" -[") :] for answer in answers[1:])


def test_underground_lies_on_a_map_with_north_above():
    nodes = {node["name"]: node for node in sampled(GraphTraversal(), **LONDON).facts["graph"]["nodes"]}
    assert nodes["High Barnet"]["y"] < nodes["Bank"]["y"] < nodes["Morden"]["y"]
    assert nodes["Heathrow Terminal 4"]["x"] < nodes["Bank"]["x"] < nodes["Upminster"]["x"]
    assert all(0 <= node[axis] <= 1 for node in nodes.values() for axis in "xy")


def test_map_that_labels_cannot_distinguish_is_no_choice():
    assert set(GraphTraversal(label_digits=2).choices()[0].values) == {"random", "london-zone-1"}
    with pytest.raises(SizeError, match="map: expected one of random, london-zone-1, got london"):
        choose(GraphTraversal(label_digits=2), 1, LONDON)


def test_size_of_a_random_graph_is_none_of_the_underground():
    with pytest.raises(SizeError, match="nodes: expected one of map, moves, queries, planning, got 9"):
        choose(GraphTraversal(), 1, LONDON | {"nodes": "9"})


@pytest.mark.parametrize("seed", range(4))
def test_relative_is_the_only_one_in_the_relation_asked_for(seed):
    sample = sampled(FamilyTree(), seed, steps=3, queries=2)
    description, questions = read(episode_of(sample))
    names = dict(enumerate(RELATIONS, FIRST_RELATION))
    for question, route in zip(questions, sample.facts["routes"], strict=True):
        [(person, relation, relative)] = question.answer
        assert related(description, person, names[relation]) == {relative}
        assert route["names"] == [names[relation]]
    assert sample.kept == len(description) <= FamilyTree().needed({"people": 20})


def test_generation_of_a_person_follows_that_of_the_parents():
    graph = sampled(FamilyTree(), generations=5, people=40).facts["graph"]
    nodes = graph["nodes"]
    assert {node["generation"] for node in nodes} == set(range(5))
    for edge in graph["edges"]:
        born = nodes[edge["to"]]["generation"] - nodes[edge["from"]]["generation"]
        assert born == (-1 if edge["name"] in ("father", "mother") else 1)


@pytest.mark.parametrize("name", ["graph-traversal", "shortest-path", "family-tree"])
def test_memory_keeps_a_triple_for_each_that_is_described(name):
    sample = sampled(SOURCES[name]())
    assert sample.kept == sample.phases[0].stop == len(sample.facts["graph"]["edges"])
