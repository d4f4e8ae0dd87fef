"""Family tree: a family known by name, relatives by hand, and every question checked against the shown triples."""

import numpy as np
import pytest

from models.config import ConfigError
from models.episodes.families import FIRST_RELATION, RELATIONS, STEPS, Family, random_family
from tests.training.tasks.situations import generator
from tests.training.tasks.triples import sequences
from training.tasks import FamilyTree, build_task

PEOPLE = ("Abe", "Ada", "Ben", "Bea", "Bill", "Carl", "Cleo", "Cid", "Dora", "Dan")
"""Abe and Ada have Bea and Bill; Ben and Bea have Cleo and Cid; Carl and Cleo have Dora and Dan."""

FAMILY = Family(
    father=np.array([-1, -1, -1, 0, 0, -1, 2, 2, 5, 5]),
    mother=np.array([-1, -1, -1, 1, 1, -1, 3, 3, 6, 6]),
    woman=np.array([name in ("Ada", "Bea", "Cleo", "Dora") for name in PEOPLE]),
)

LABELS = {name: FIRST_RELATION + place for place, name in enumerate(RELATIONS)}


def who(person, relation):
    """Return the names of all who have this relation to a person of the family."""
    found = FAMILY.relatives()[list(RELATIONS).index(relation), PEOPLE.index(person)]
    return {PEOPLE[other] for other in np.flatnonzero(found)}


def related(description, person, relation):
    """Return the relatives of a person in a relation, by the shown triples, word by word."""
    people = {person}
    for word in RELATIONS[relation]:
        people = {other for one in people for other in one_word(description, one, word)}
    return people


def one_word(description, person, word):
    def named(*relations):
        return {to for source, relation, to in description if source == person and relation in relations}

    basic = {"father": (0,), "mother": (1,), "parent": (0, 1), "son": (2,), "daughter": (3,), "child": (2, 3)}
    if word in basic:
        return named(*basic[word])
    relation = {"brother": (2,), "sister": (3,), "sibling": (2, 3)}[word]
    return {to for source, each, to in description if source in named(0, 1) and each in relation} - {person}


# Relations


@pytest.mark.parametrize(
    ("person", "relation", "found"),
    [
        ("Dora", "maternal great-uncle", {"Bill"}),
        ("Dora", "maternal grandmother's father", {"Abe"}),
        ("Dora", "maternal uncle", {"Cid"}),
        ("Dora", "brother", {"Dan"}),
        ("Dora", "sister", set()),
        ("Dora", "paternal grandfather", set()),
        ("Cid", "nephew", {"Dan"}),
        ("Cid", "niece", {"Dora"}),
        ("Bill", "grandnephew", {"Dan"}),
        ("Ada", "great-granddaughter", {"Dora"}),
        ("Ada", "grandson", {"Cid"}),
        ("Ben", "granddaughter", {"Dora"}),
        ("Carl", "brother", set()),
    ],
)
def test_relative_in_a_known_family_agrees_with_the_word(person, relation, found):
    assert who(person, relation) == found


def test_cousins_are_children_of_the_siblings_of_a_parent():
    family = Family(
        father=np.array([-1, -1, 0, 0, -1, -1, 2, 4]),
        mother=np.array([-1, -1, 1, 1, -1, -1, 5, 3]),
        woman=np.array([False, True, False, True, False, True, True, False]),
    )
    relatives = family.relatives()
    male, female = (list(RELATIONS).index(name) for name in ("paternal male cousin", "maternal female cousin"))
    assert np.argwhere(relatives[male]).tolist() == [[6, 7]]
    assert np.argwhere(relatives[female]).tolist() == [[7, 6]]


def test_relations_have_34_names_of_two_to_four_steps():
    steps = [sum(STEPS[word] for word in words) for words in RELATIONS.values()]
    assert [steps.count(number) for number in (2, 3, 4)] == [8, 16, 10]
    assert len(RELATIONS) == 34


def test_triples_hold_the_parents_and_children_of_everyone():
    shown = set(map(tuple, FAMILY.triples().tolist()))
    assert len(shown) == 4 * 6
    dora, dan, carl, cleo = (PEOPLE.index(name) for name in ("Dora", "Dan", "Carl", "Cleo"))
    assert {(dora, 0, carl), (dora, 1, cleo), (carl, 3, dora), (cleo, 3, dora), (cleo, 2, dan)} <= shown


# Families


@pytest.mark.parametrize(("people", "generations"), [(6, 3), (8, 4), (13, 3), (25, 5)])
def test_family_grows_to_its_number_of_people_and_generations(people, generations):
    family = random_family(np.random.default_rng(0), people, generations)
    assert len(family.woman) == people
    depth = []
    for father, mother in zip(family.father.tolist(), family.mother.tolist(), strict=True):
        depth.append(1 + max(depth[father], depth[mother]) if father >= 0 else 0)
    assert max(depth) == generations - 1


def test_family_has_male_fathers_and_lifelong_couples():
    for seed in range(20):
        family = random_family(np.random.default_rng(seed), 20, 4)
        couples = {
            couple for couple in zip(family.father.tolist(), family.mother.tolist(), strict=True) if couple[0] >= 0
        }
        assert not any(family.woman[father] for father, _ in couples)
        assert all(family.woman[mother] for _, mother in couples)
        assert len({father for father, _ in couples}) == len({mother for _, mother in couples}) == len(couples)


def test_family_leaves_nobody_without_a_relative():
    family = random_family(np.random.default_rng(3), 20, 4)
    assert set(family.triples()[:, 0].tolist()) == set(range(20))


# Episodes


def test_episode_asks_for_the_only_such_relative():
    for description, questions in sequences(FamilyTree(), generator(), 40):
        for query, planning, answer in questions:
            ((person, label, nobody),) = query
            name = list(RELATIONS)[label - FIRST_RELATION]
            ((same_person, same_label, other),) = answer
            assert (person, label, nobody) == (same_person, same_label, None)
            assert related(description, person, name) == {other}
            assert planning == 10


def test_episode_draws_people_queries_and_planning_from_their_ranges():
    task = FamilyTree(people=(8, 10), queries=(1, 2), planning=(0, 3))
    drawn = sequences(task, generator(), 100)
    assert {len({person for person, _, _ in description}) for description, _ in drawn} == {8, 9, 10}
    assert {len(questions) for _, questions in drawn} == {1, 2}
    assert {question.planning for _, questions in drawn for question in questions} == {0, 1, 2, 3}


@pytest.mark.parametrize("steps", [2, 3, 4])
def test_episode_asks_for_relations_of_the_steps_given(steps):
    task = FamilyTree(steps=(steps, steps), people=(8, 12))
    for _, questions in sequences(task, generator()):
        names = [list(RELATIONS)[question.query[0][1] - FIRST_RELATION] for question in questions]
        assert {sum(STEPS[word] for word in RELATIONS[name]) for name in names} == {steps}


def test_episodes_ask_for_every_relation_sooner_or_later():
    task = FamilyTree(queries=(3, 3), generations=(4, 4))
    drawn = sequences(task, generator(), 300)
    assert {question.query[0][1] for _, questions in drawn for question in questions} == set(LABELS.values())


def test_smallest_family_that_is_allowed_has_questions():
    task = FamilyTree(people=(8, 8), generations=(3, 4), steps=(4, 4), queries=(3, 3))
    assert all(len(questions) == 3 for _, questions in sequences(task, generator(), 20))


# Options and text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"people": 9, "generations": 5}, "FamilyTree.people must be at least 10, to have a question in 5 generations"),
        ({"people": 7}, "FamilyTree.people must be at least 8"),
        ({"steps": [2, 5]}, "FamilyTree.steps must be at most 4"),
        ({"steps": 1}, "FamilyTree.steps must be at least 2, got 1"),
        ({"generations": 2}, "FamilyTree.generations must be at least 3, got 2"),
        ({"label_digits": 1}, "FamilyTree.label_digits must be at least 2, to distinguish 44 labels, got 1"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(ConfigError) as refused:
        build_task({"name": "family-tree", **options})
    assert message in str(refused.value)


def test_text_names_the_relation_that_is_asked_for():
    task = FamilyTree(queries=(1, 1), planning=(2, 2))
    episode = task.sample(generator(), 1)
    lines = task.render(episode).splitlines()
    person, relation, nobody = lines[1].removeprefix("query: ").replace("]-> ", " -[").split(" -[")
    assert relation in RELATIONS
    assert nobody == "?"
    assert lines[2] == "planning: 2 steps"
    assert lines[3].startswith(f"answer: {person} -[{relation}]-> ")
