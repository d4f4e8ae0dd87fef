"""Graph traversal and shortest path: the layout by hand, and every path checked against the graph that is described."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from models.config import ConfigError
from models.episodes.maps import LabelledGraph, random_graph, routes
from models.episodes.triples import BLANK, Part, answered, one_hot, silent
from tests.training.tasks.situations import generator, right
from tests.training.tasks.triples import read, sequences, triple
from training.tasks import FamilyTree, GraphTraversal, ShortestPath, build_task
from training.tasks.graph_encoding import decode, encode

LINE = np.array([[1, 50, 2], [2, 60, 3]])
"""The triples of the path 1 -[50]-> 2 -[60]-> 3."""

DIAMOND = LabelledGraph(nodes=5, kinds=2, edges=np.array([[0, 0, 1], [0, 1, 2], [1, 0, 3], [2, 0, 3], [3, 0, 4]]))
"""Two ways from 0 to 3, over 1 and over 2, and one from there to 4."""


def shortest_paths(description, source, destination):
    """Return all shortest paths, found one move after another."""
    paths = [[]]
    for _ in range(len(description)):
        ends = [(path, path[-1][2] if path else source) for path in paths]
        paths = [[*path, edge] for path, end in ends for edge in description if edge[0] == end]
        found = [path for path in paths if path[-1][2] == destination]
        if found:
            return found
    return []


def line_asked(planning=0):
    """Return an episode that describes the line, asks for the way from 1 to 3, and is silent for some steps."""
    query = np.array([[1, BLANK, 3]])
    return encode([[Part(LINE), Part(query), silent(planning), answered(LINE)]], digits=3)


# The encoding


def test_label_has_one_hot_digits_and_a_blank_zeros():
    channels = one_hot(np.array([307, BLANK, 40]), digits=3)
    assert channels.shape == (90,)
    assert np.flatnonzero(channels).tolist() == [3, 10 + 0, 20 + 7, 60 + 0, 70 + 4, 80 + 0]


def test_triples_come_back_from_channels_also_from_logits():
    triples = np.array([[307, BLANK, 999], [0, 1, BLANK], [BLANK, BLANK, BLANK]])
    channels = torch.from_numpy(one_hot(triples, digits=3))
    assert decode(channels, digits=3).tolist() == triples.tolist()
    assert decode(channels[0] * 3 - 1, digits=3).tolist() == [307, 0, 999]


def test_episode_shows_description_query_silence_and_answer_with_their_flags():
    episode = line_asked(planning=2)
    shown = [triple(step) for step in episode.inputs[:, 0, :90].tolist()]
    blank = (None, None, None)
    assert shown == [(1, 50, 2), (2, 60, 3), (1, None, 3), blank, blank, blank, blank]
    assert episode.inputs[:, 0, 90].tolist() == [0, 0, 1, 1, 0, 1, 0]
    assert episode.inputs[:, 0, 91].tolist() == [0, 0, 0, 0, 0, 1, 1]
    assert episode.mask[:, 0].tolist() == [0, 0, 0, 0, 0, 1, 1]
    assert [triple(step) for step in episode.targets[:, 0].tolist()] == [blank] * 5 + [(1, 50, 2), (2, 60, 3)]


def test_episode_without_planning_goes_from_query_to_answer():
    episode = line_asked()
    assert episode.lengths.tolist() == [5]
    assert episode.inputs[:, 0, 90].tolist() == [0, 0, 1, 1, 0]
    assert episode.mask[:, 0].tolist() == [0, 0, 0, 1, 1]


def test_sequences_of_a_batch_are_padded_with_zeros():
    rows = [[Part(LINE), answered(LINE[:1])], [Part(LINE[:1]), answered(LINE[:1])]]
    episode = encode(rows, digits=3)
    assert episode.lengths.tolist() == [3, 2]
    assert not episode.inputs[2, 1].any()
    assert episode.mask.T.tolist() == [[0, 0, 1], [0, 1, 0]]


@pytest.mark.parametrize(("digits", "inputs", "groups"), [(3, 92, 9), (2, 62, 6), (1, 32, 3)])
def test_sizes_of_the_model_follow_from_the_digits_of_labels(digits, inputs, groups):
    assert GraphTraversal(label_digits=digits, nodes=(5, 10)).model_values == {
        "input_size": inputs,
        "output_size": inputs - 2,
        "output_activation": "softmax",
        "output_groups": groups,
    }


# Measures


def test_answer_with_one_wrong_digit_is_one_wrong_answer():
    episode = line_asked()
    outputs = right(episode)
    outputs[4, 0, 30 + 4] = 9
    assert decode(outputs[4, 0], digits=3).tolist() == [2, 460, 3]
    task = ShortestPath()
    assert task.errors(right(episode), episode).tolist() == [0]
    assert task.errors(outputs, episode).tolist() == task.asked(episode).tolist() == [1]


def test_loss_is_the_mean_over_nine_softmaxes_of_ten():
    episode = line_asked()
    assert_close(ShortestPath().loss(torch.zeros(5, 1, 90), episode), torch.tensor(math.log(10)))
    certain = right(episode, certainty=0.5)
    assert_close(ShortestPath().loss(certain, episode), torch.tensor(math.log(1 + 9 / math.e)))


# Graphs


def test_random_graph_leads_from_each_node_to_its_nearest():
    graph = random_graph(np.random.default_rng(5), nodes=12, neighbours=(3, 3))
    points = np.random.default_rng(5).random((12, 2))
    for node in range(12):
        distances = {other: math.dist(points[node], points[other]) for other in range(12) if other != node}
        nearest = sorted(distances, key=distances.get)[:3]
        assert [to for _, to in graph.outgoing[node]] == nearest


def test_random_graph_draws_neighbours_from_the_range():
    graph = random_graph(np.random.default_rng(0), nodes=40, neighbours=(2, 4))
    assert {len(edges) for edges in graph.outgoing} == {2, 3, 4}


def test_random_graph_of_few_nodes_leads_to_all_others():
    graph = random_graph(np.random.default_rng(0), nodes=3, neighbours=(4, 6))
    assert [sorted(to for _, to in edges) for edges in graph.outgoing] == [[1, 2], [0, 2], [0, 1]]


def test_labels_of_nodes_and_of_kinds_are_different():
    triples = DIAMOND.labelled(np.random.default_rng(0), digits=1)
    nodes = dict(zip(DIAMOND.edges[:, [0, 2]].ravel().tolist(), triples[:, [0, 2]].ravel().tolist(), strict=True))
    assert len(nodes) == len(set(nodes.values())) == 5
    kinds = set(zip(DIAMOND.edges[:, 1].tolist(), triples[:, 1].tolist(), strict=True))
    assert len(kinds) == 2
    assert triples[:, 0].tolist() == [nodes[source] for source in DIAMOND.edges[:, 0].tolist()]


def test_routes_of_the_diamond_are_unique_except_across():
    moves, pairs = routes(DIAMOND, limit=3)
    assert moves[0].tolist() == [0, 1, 1, 2, 3]
    assert moves[4].tolist() == [-1, -1, -1, -1, 0]
    assert sorted(map(tuple, pairs[2].tolist())) == [(1, 4), (2, 4)]
    assert pairs[3].tolist() == []


def test_routes_by_two_edges_side_by_side_are_not_unique():
    pairs = routes(LabelledGraph(2, 2, np.array([[0, 0, 1], [0, 1, 1], [1, 0, 0]])), limit=1).pairs
    assert pairs[1].tolist() == [[1, 0]]


# Traversal


def test_traversal_asks_by_the_first_node_and_the_edges():
    assert GraphTraversal().query(LINE).tolist() == [[1, 50, BLANK], [BLANK, 60, BLANK]]


def test_traversal_describes_edges_that_are_different_out_of_every_node():
    for description, _ in sequences(GraphTraversal(), generator()):
        assert len({(source, edge) for source, edge, _ in description}) == len(description)
        nodes = {source for source, _, _ in description}
        assert 10 <= len(nodes) <= 20
        assert nodes >= {destination for _, _, destination in description}
        assert all(2 <= sum(source == node for source, _, _ in description) <= 4 for node in nodes)


def test_traversal_answers_with_the_one_path_that_the_query_describes():
    task = GraphTraversal(queries=(1, 3), moves=(1, 6))
    for description, questions in sequences(task, generator()):
        for query, planning, answer in questions:
            node, path = query[0][0], []
            for _, edge, _ in query:
                (step,) = [step for step in description if step[:2] == (node, edge)]
                path.append(step)
                node = step[2]
            assert answer == path
            assert all(source is None for source, _, _ in query[1:])
            assert planning == 0


def test_traversal_describes_its_edges_in_no_order():
    descriptions = [description for description, _ in sequences(GraphTraversal(), generator())]
    assert all(description != sorted(description) for description in descriptions)
    sources = [[source for source, _, _ in description] for description in descriptions]
    in_runs = sum(one == two for each in sources for one, two in itertools.pairwise(each))
    assert in_runs < 0.2 * sum(map(len, sources))


def test_traversal_draws_moves_queries_and_planning_from_their_ranges():
    task = GraphTraversal(nodes=(5, 5), moves=(2, 4), queries=(1, 3), planning=(0, 2))
    drawn = [questions for _, questions in sequences(task, generator(), 200)]
    assert {len(questions) for questions in drawn} == {1, 2, 3}
    asked = [question for questions in drawn for question in questions]
    assert {len(question.answer) for question in asked} == {2, 3, 4}
    assert {question.planning for question in asked} == {0, 1, 2}


@pytest.mark.parametrize("task", [GraphTraversal, ShortestPath, FamilyTree])
def test_planning_per_triple_grows_with_the_description(task):
    drawn = sequences(task(planning=(2, 2), planning_per_triple=0.5), generator(), 20)
    assert len({len(description) for description, _ in drawn}) > 1
    for description, questions in drawn:
        assert {question.planning for question in questions} == {2 + round(len(description) / 2)}


@pytest.mark.parametrize("task", [GraphTraversal, ShortestPath, FamilyTree])
@pytest.mark.parametrize("steps", [-0.5, 100.5, math.nan])
def test_planning_per_triple_out_of_range_is_refused(task, steps):
    with pytest.raises(ConfigError, match=rf"{task.__name__}.planning_per_triple must be 0 to 100 steps, got {steps}"):
        task(planning_per_triple=steps)


def test_traversal_with_labels_of_one_digit_keeps_them_apart():
    task = GraphTraversal(label_digits=1, nodes=(10, 10))
    for description, _ in sequences(task, generator()):
        assert {source for source, _, _ in description} == set(range(10))


# Shortest path


def test_shortest_path_asks_by_the_two_ends():
    assert ShortestPath().query(LINE).tolist() == [[1, BLANK, 3]]


def test_shortest_path_answers_with_the_only_one():
    task = ShortestPath(queries=(1, 2), moves=(1, 5), planning=(3, 3))
    for description, questions in sequences(task, generator(), 40):
        for query, planning, answer in questions:
            ((source, edge, destination),) = query
            assert edge is None
            assert shortest_paths(description, source, destination) == [answer]
            assert 1 <= len(answer) <= 5
            assert planning == 3


def test_shortest_path_draws_every_length_of_its_range():
    drawn = sequences(ShortestPath(nodes=(20, 20)), generator(), 100)
    lengths = [len(questions[0].answer) for _, questions in drawn]
    assert set(lengths) == {2, 3, 4}
    assert min(lengths.count(length) for length in (2, 3, 4)) > 20


def test_shortest_path_draws_again_a_graph_without_any():
    drawn = sequences(ShortestPath(nodes=(4, 4), neighbours=(1, 3), moves=(3, 3)), generator(), 20)
    assert all(len(questions[0].answer) == 3 for _, questions in drawn)


def test_shortest_path_in_no_graph_is_refused_with_remedy():
    task = ShortestPath(nodes=(5, 5), neighbours=(4, 4))
    with pytest.raises(ConfigError, match=r"ShortestPath.moves must be .*got \[2, 4\].*fewer neighbours than \[4, 4\]"):
        task.sample(generator(), 1)


# Options and text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_digits": 0}, "GraphTraversal.label_digits must be at least 1, got 0"),
        ({"label_digits": 1}, "GraphTraversal.label_digits must be at least 2, to distinguish 20 labels, got 1"),
        ({"nodes": [1, 5]}, "GraphTraversal.nodes must be at least 2, got 1"),
        ({"moves": 0}, "GraphTraversal.moves must be at least 1, got 0"),
        ({"queries": [2, 1]}, "GraphTraversal.queries must be [least, greatest]"),
        ({"label_digits": 2, "map": "london"}, "to distinguish 302 labels"),
        ({"map": "paris"}, "expected one of 'random', 'london', 'london-zone-1', got 'paris'"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(ConfigError) as refused:
        build_task({"name": "graph-traversal", **options})
    assert message in str(refused.value)


def test_numbers_of_nodes_and_moves_alone_are_their_ranges():
    task = build_task({"name": "shortest-path", "nodes": 12, "moves": 2})
    assert (task.nodes, task.moves, task.options["nodes"]) == ((12, 12), (2, 2), 12)


def test_text_of_a_traversal_has_question_and_answer():
    parts = [Part(LINE), Part(GraphTraversal().query(LINE)), answered(LINE)]
    assert GraphTraversal().render(encode([parts], digits=3)).splitlines() == [
        "description: 2 triples",
        "query: 001 -[050]-> ? -[060]-> ?",
        "answer: 001 -[050]-> 002 -[060]-> 003",
    ]


def test_text_of_a_shortest_path_has_ends_and_silence():
    assert ShortestPath().render(line_asked(planning=4)).splitlines() == [
        "description: 2 triples",
        "query: 001 -[?]-> 003",
        "planning: 4 steps",
        "answer: 001 -[050]-> 002 -[060]-> 003",
    ]


def test_text_of_a_sequence_agrees_with_its_channels():
    task = GraphTraversal(queries=(2, 2))
    episode = task.sample(generator(), 4)
    description, questions = read(episode, 3)
    lines = task.render(episode, 3).splitlines()
    assert lines[0] == f"description: {len(description)} triples"
    assert [line.count("->") for line in lines[1:]] == [len(question.answer) for question in questions for _ in "qa"]


# Answers taken for edges

BY_EDGES = ShortestPath(answers="edges", queries=(1, 3), nodes=(4, 20), moves=(1, 4), planning=(0, 3))


def walked(task, outputs, episode, row):
    """Return how many answers of a sequence are wrong, edge by edge, in loops."""
    description, questions = read(episode, row)
    steps = iter(np.flatnonzero(episode.mask[:, row].numpy()))
    wrong = 0
    for query, _, answer in questions:
        ((node, _, destination),) = query
        for _ in answer:
            digits = outputs[next(steps), row].view(9, 10).log_softmax(1)
            likely = {
                edge: sum(
                    digits[place, int(digit)].item()
                    for place, digit in enumerate("".join(f"{label:03}" for label in edge))
                )
                for edge in description
                if edge[0] == node
            }
            *_, node = max(likely, key=likely.get)
        wrong += node != destination
    return wrong


def test_answers_taken_for_edges_are_counted_as_loops_count_them():
    episode = BY_EDGES.sample(generator(), 30)
    outputs = 0.5 * episode.targets + torch.randn(episode.targets.shape, generator=generator())
    found = BY_EDGES.errors(outputs, episode).tolist()
    assert found == [walked(BY_EDGES, outputs, episode, row) for row in range(30)]
    assert 0 < sum(found) < BY_EDGES.asked(episode).sum()
    assert BY_EDGES.errors(9 * episode.targets, episode).tolist() == [0] * 30


def test_answer_taken_for_edges_may_have_wrong_digits():
    description = np.array([[1, 50, 2], [1, 60, 4], [2, 60, 3], [4, 50, 4]])
    query, answer = np.array([[1, BLANK, 3]]), np.array([[1, 50, 2], [2, 60, 3]])
    episode = encode([[Part(description), Part(query), answered(answer)]], digits=3)
    task = ShortestPath(answers="edges")
    said = torch.from_numpy(one_hot(np.array([[7, 50, 2], [4, 50, 4]]), 3))  # no edge; then one that leaves elsewhere
    outputs = torch.zeros_like(episode.targets)
    outputs[-2:, 0] = said
    assert (task.errors(outputs, episode).item(), ShortestPath().errors(outputs, episode).item()) == (0, 1)
    outputs[-2, 0] = torch.from_numpy(one_hot(np.array([1, 60, 4]), 3))
    assert task.errors(outputs, episode).item() == 1
