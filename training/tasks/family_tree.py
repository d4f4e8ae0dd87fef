"""Family tree: shown who is whose father, mother, son and daughter, say who is someone's maternal great-uncle."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from models.config import ConfigError
from training.tasks.base import Range
from training.tasks.graph_encoding import BLANK, DESTINATION, Labels, Question, TripleTask, draw_size

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


@dataclass(frozen=True)
class FamilyTree(TripleTask):
    """A family is described in triples; the model names a relative that takes several of them to find.

        time      0 1 2 3 4 5 6 7 8
        triple    d d d d q . . . .     the query is (a, maternal great-uncle, _)
        phase     . . . . # # . . #
        answer    . . . . . . . . #
        target                    t     (a, maternal great-uncle, b), here after 3 steps of planning

    For each person with parents there are four triples: (person, father, f), (person, mother, m) and, from both of
    these, (f, son, person) or (f, daughter, person). The labels of people are drawn; those of relations are always
    the same, 0 to 3 for the basic ones, and from 10 for those of RELATIONS, the relations of queries. These are never
    explained: the model learns that a maternal great-uncle is the brother of a mother's parent. Person and relation are
    drawn from those that have exactly one answer in the family.

    All are ranges. people: their number; generations: their number. A family begins as one line of descent, then a
    random couple has another child, or a random single person marries and has a first one, until the number is reached.
    steps: the number of basic relations in the relation of a query, 2 to 4, drawn first and uniformly; a family without
    such a query is drawn again. planning: the steps of silence, 10 in the paper; queries: their number, 3 in the paper.

    The encoding, the planning, the unexplained relations and the questions about a family are those of the paper's
    inference task. But there it is one invented family, for the test alone: training is on random graphs with ten kinds
    of edges, and the relations are 400 sequences, drawn once, of 2 to 5 of these. Here all graphs are families and the
    relations are those of people, some of which hold by any of several sequences.
    """

    label_digits: int = 3
    people: Range = (10, 20)
    generations: Range = (3, 4)
    steps: Range = (2, 4)
    queries: Range = (1, 3)
    planning: Range = (10, 10)

    name = "family-tree"

    def __post_init__(self) -> None:
        self.require(max(self.people[1], FIRST_RELATION + len(RELATIONS)), generations=3, steps=2)
        if self.steps[1] > 4:
            raise ConfigError(
                f"FamilyTree.steps must be at most 4, the most that a relation takes, got {self.steps[1]}"
            )
        least = 2 * max(self.generations[1], self.steps[1])
        if self.people[0] < least:
            raise ConfigError(
                f"FamilyTree.people must be at least {least}, to have a question in {self.generations[1]} generations "
                f"and of {self.steps[1]} steps, got {self.people[0]}"
            )

    def row(self, random: np.random.Generator) -> tuple[Labels, list[Question]]:
        family, asked = self._questions(random)
        people = random.choice(10**self.label_digits, len(family.woman), replace=False)
        questions = []
        for triple in _labelled(asked, people)[:, None]:
            query = triple.copy()
            query[:, DESTINATION] = BLANK
            questions.append(Question(query, triple))
        return _labelled(family.triples(), people), questions

    def names(self, description: Labels) -> tuple[Mapping[int, str], Mapping[int, str]]:
        del description
        return {}, dict(enumerate(BASIC)) | dict(enumerate(RELATIONS, FIRST_RELATION))

    def _questions(self, random: np.random.Generator) -> tuple[Family, Labels]:
        """Return a family and the questions about it: person, label of the relation, relative, [questions, 3]."""
        steps = random.integers(*self.steps, draw_size(random, self.queries), endpoint=True)
        while True:
            family = random_family(random, draw_size(random, self.people), draw_size(random, self.generations))
            relatives = family.relatives()
            relation, person = np.nonzero(relatives.sum(2) == 1)
            choices = [np.flatnonzero(_STEPS[relation] == each) for each in steps]
            if all(len(each) for each in choices):
                chosen = np.array([random.choice(each) for each in choices])
                relation, person = relation[chosen], person[chosen]
                return family, np.stack([person, FIRST_RELATION + relation, relatives[relation, person].argmax(1)], 1)


def random_family(random: np.random.Generator, people: int, generations: int) -> Family:
    """Return a family of `people` people in `generations` generations, grown as FamilyTree describes."""
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


def _labelled(triples: Labels, people: NDArray[np.int64]) -> Labels:
    """Return triples with the labels of people for their numbers."""
    source, relation, destination = triples.T
    return np.stack([people[source], relation, people[destination]], 1)
