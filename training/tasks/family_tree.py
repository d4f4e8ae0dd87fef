"""Family tree: shown who is whose father, mother, son and daughter, say who is someone's maternal great-uncle."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from models.config import ConfigError
from models.episodes.families import (
    BASIC,
    FIRST_RELATION,
    RELATIONS,
    Family,
    labelled,
    questions_about,
    random_family,
    relative_query,
)
from models.episodes.triples import Labels, Question, draw_size
from training.tasks.base import Range
from training.tasks.graph_encoding import TripleTask


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
    planning_per_triple: float = 0.0

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
        questions = [Question(relative_query(triple), triple) for triple in labelled(asked, people)[:, None]]
        return labelled(family.triples(), people), questions

    def names(self, description: Labels) -> tuple[Mapping[int, str], Mapping[int, str]]:
        del description
        return {}, dict(enumerate(BASIC)) | dict(enumerate(RELATIONS, FIRST_RELATION))

    def _questions(self, random: np.random.Generator) -> tuple[Family, Labels]:
        """Return a family and the questions about it: person, label of the relation, relative, [questions, 3]."""
        steps = random.integers(*self.steps, draw_size(random, self.queries), endpoint=True)
        while True:
            family = random_family(random, draw_size(random, self.people), draw_size(random, self.generations))
            asked = questions_about(family, random, steps)
            if asked is not None:
                return family, asked
