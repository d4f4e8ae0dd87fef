"""Families, and who is who in them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.episodes.base import Random
from models.episodes.triples import BLANK, DESTINATION, Labels

BASIC = ("father", "mother", "son", "daughter")
"""The relations that describe a family; their labels are their places here."""

FATHER, MOTHER, SON, DAUGHTER = range(4)

FIRST_RELATION = 10
"""The label of the first relation that is asked for; the others follow."""

STEPS = {"self": 0, "father": 1, "mother": 1, "parent": 1, "son": 1, "daughter": 1, "child": 1}
STEPS |= {"brother": 2, "sister": 2, "sibling": 2}
"""The steps of relations, and the number of basic ones in each: a brother is a parent's son, but not oneself."""


def _relations() -> dict[str, tuple[str, ...]]:
    """Return the relations of queries, in the order of their labels, each as its steps in order."""
    relations: dict[str, tuple[str, ...]] = {"brother": ("brother",), "sister": ("sister",)}
    relations |= {"grandson": ("child", "son"), "granddaughter": ("child", "daughter")}
    relations |= {"nephew": ("sibling", "son"), "niece": ("sibling", "daughter")}
    relations |= {"great-grandson": ("child", "child", "son"), "great-granddaughter": ("child", "child", "daughter")}
    relations |= {"grandnephew": ("sibling", "child", "son"), "grandniece": ("sibling", "child", "daughter")}
    for side, parent in (("paternal", "father"), ("maternal", "mother")):
        for grandparent in ("father", "mother"):
            relations[f"{side} grand{grandparent}"] = (parent, grandparent)
            relations[f"{side} grand{grandparent}'s father"] = (parent, grandparent, "father")
            relations[f"{side} grand{grandparent}'s mother"] = (parent, grandparent, "mother")
        relations |= {f"{side} uncle": (parent, "brother"), f"{side} aunt": (parent, "sister")}
        relations[f"{side} great-uncle"] = (parent, "parent", "brother")
        relations[f"{side} great-aunt"] = (parent, "parent", "sister")
        relations[f"{side} male cousin"] = (parent, "sibling", "son")
        relations[f"{side} female cousin"] = (parent, "sibling", "daughter")
    return relations


RELATIONS = _relations()

_STEPS = np.array([sum(STEPS[word] for word in words) for words in RELATIONS.values()])
"""[relations]"""

_WORDS = np.array([[list(STEPS).index(word) for word in (*words, "self", "self")[:3]] for words in RELATIONS.values()])
"""[relations, 3], by the place of the word in STEPS"""


class Family(NamedTuple):
    """People, by number; -1 stands for an unknown parent. Couples have children with each other only."""

    father: NDArray[np.int64]
    """[people]"""
    mother: NDArray[np.int64]
    """[people]"""
    woman: NDArray[np.bool_]
    """[people]"""

    def triples(self) -> Labels:
        """Return who is whose father, mother, son or daughter: 4 for each person with parents, [triples, 3]."""
        children = np.flatnonzero(self.father >= 0)
        triples = []
        for relation, parents in ((FATHER, self.father), (MOTHER, self.mother)):
            triples.append([children, np.full_like(children, relation), parents[children]])
            triples.append([parents[children], np.where(self.woman[children], DAUGHTER, SON), children])
        return np.concatenate(triples, 1).T

    def generations(self) -> list[int]:
        """Return the generation of each person, from 0; a couple is of the later one of its two."""
        born = [0] * len(self.woman)
        for child in np.flatnonzero(self.father >= 0).tolist():  # parents come before their children
            father, mother = int(self.father[child]), int(self.mother[child])
            born[father] = born[mother] = max(born[father], born[mother])
            born[child] = born[father] + 1
        return born

    def relatives(self) -> NDArray[np.bool_]:
        """Return who has which relation to whom: [relations, people, relatives], in the order of RELATIONS."""
        person = np.arange(len(self.woman))
        self_ = np.eye(len(person), dtype=np.float32)
        father = (self.father[:, None] == person).astype(np.float32)
        mother = (self.mother[:, None] == person).astype(np.float32)
        parent = father + mother
        child = parent.T
        sibling = (father @ father.T) * (1 - self_)
        words = {"self": self_, "father": father, "mother": mother, "parent": parent}
        words |= {"son": child * ~self.woman, "daughter": child * self.woman, "child": child}
        words |= {"brother": sibling * ~self.woman, "sister": sibling * self.woman, "sibling": sibling}
        first, second, third = np.stack([words[word] for word in STEPS])[_WORDS.T]
        found: NDArray[np.bool_] = first @ second @ third > 0
        return found


def random_family(random: Random, people: int, generations: int) -> Family:
    """Return a family of `people` people in `generations` generations: see `training.tasks.FamilyTree`."""
    parents, woman, generation = [(-1, -1), (-1, -1)], [False, True], [0, 0]
    couples, single = [(0, 1)], []

    def add(couple: tuple[int, int], is_woman: bool, born: int) -> int:
        parents.append(couple)
        woman.append(is_woman)
        generation.append(born)
        return len(woman) - 1

    def have_child(couple: tuple[int, int]) -> None:
        single.append(add(couple, bool(random.random() < 0.5), generation[couple[0]] + 1))

    def marry(person: int) -> None:
        spouse = add((-1, -1), not woman[person], generation[person])
        single.remove(person)
        couples.append((spouse, person) if woman[person] else (person, spouse))
        have_child(couples[-1])

    have_child(couples[0])
    while generation[-1] < generations - 1:
        marry(single[-1])
    while len(woman) < people:
        may_marry = [one for one in single if generation[one] < generations - 1] if len(woman) < people - 1 else []
        chosen = int(random.integers(len(couples) + len(may_marry)))
        if chosen < len(couples):
            have_child(couples[chosen])
        else:
            marry(may_marry[chosen - len(couples)])
    father, mother = np.array(parents).T
    return Family(father, mother, np.array(woman))


def questions_about(family: Family, random: Random, steps: NDArray[np.int64]) -> Labels | None:
    """Return questions about a family: person, label of the relation, the only such relative, [questions, 3].

    steps: the basic relations in the relation of each question. None: the family has no such relation.
    """
    relatives = family.relatives()
    relation, person = np.nonzero(relatives.sum(2) == 1)
    choices = [np.flatnonzero(_STEPS[relation] == each) for each in steps]
    if not all(len(each) for each in choices):
        return None
    chosen = np.array([random.choice(each) for each in choices])
    relation, person = relation[chosen], person[chosen]
    return np.stack([person, FIRST_RELATION + relation, relatives[relation, person].argmax(1)], 1)


def relative_query(triple: Labels) -> Labels:
    """Return the question whose answer is a triple: its person and its relation, [1, 3] -> [1, 3]."""
    query = triple.copy()
    query[:, DESTINATION] = BLANK
    return query


def labelled(triples: Labels, people: NDArray[np.int64]) -> Labels:
    """Return triples with the labels of people for their numbers."""
    source, relation, destination = triples.T
    return np.stack([people[source], relation, people[destination]], 1)
