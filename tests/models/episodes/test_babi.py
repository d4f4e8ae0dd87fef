"""Samples of bAbI: stories of templates, whose answers are found again, and which training reads from a file."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from models.artefact import load
from models.config import ConfigError
from models.contract import evaluating, unroll
from models.episodes.babi import STORIES, Babi
from models.episodes.base import choose, draw
from models.episodes.people import WENT
from models.episodes.puzzles import ANIMALS
from models.episodes.things import NUMBERS
from tests.app.harness import CHECKPOINTS
from tests.models.episodes.encoding import differences
from tests.training.tasks.situations import generator
from training import tasks

VOCABULARY = tuple(json.loads((CHECKPOINTS / "dnc-babi" / "manifest.json").read_text())["task"]["vocabulary"])
SOURCE = Babi(directory="none", vocabulary=VOCABULARY)

MOVE = re.compile(rf"(?P<who>.+?) (?:{'|'.join(WENT)}) to the (?P<place>\w+)\.")
TAKE = re.compile(r"(?P<who>\w+) (?:got|grabbed|picked up|took) the (?P<thing>\w+)(?: there)?\.")
DROP = re.compile(r"(?P<who>\w+) (?:discarded|dropped|left|put down) the (?P<thing>\w+)(?: there)?\.")


def drawn(task, seed, planning=0, **asked):
    texts, source = {name: str(value) for name, value in asked.items()}, replace(SOURCE, planning=planning)
    sample = draw(source, seed, choose(source, seed, {"task": str(task), **texts}))
    return sample, sample.facts["story"]


class Replay:
    """Reads a story, sentence by sentence, and answers its questions about people, places and things."""

    def __init__(self):
        self.at, self.carried, self.history, self.last = {}, {}, {}, []

    def read(self, text):
        if match := MOVE.fullmatch(text):
            named = re.sub(r"^(after that|afterwards|following that|then) ", "", match["who"])
            self.last = self.last if named in ("he", "she", "they") else named.split(" and ")
            for who in self.last:
                self.at[who] = match["place"]
                for thing in self.carried.setdefault(who, []):
                    self.history[thing].append(match["place"])
        elif match := TAKE.fullmatch(text):
            self.carried.setdefault(match["who"], []).append(match["thing"])
            self.history.setdefault(match["thing"], [self.at[match["who"]]])
            assert self.history[match["thing"]][-1] == self.at[match["who"]]
        else:
            match = DROP.fullmatch(text)
            self.carried[match["who"]].remove(match["thing"])

    def answer(self, text):
        answers = {
            r"where is (\w+)\?": lambda who: self.at[who],
            r"is (\w+) in the (\w+)\?": lambda who, place: "yes" if self.at[who] == place else "no",
            r"where is the (\w+)\?": lambda thing: self.history[thing][-1],
            r"where was the (\w+) before the \w+\?": lambda thing: self.history[thing][-2],
            r"how many objects is (\w+) carrying\?": lambda who: NUMBERS[len(self.carried.get(who, []))],
            r"what is (\w+) carrying\?": lambda who: " ".join(self.carried.get(who, [])) or "nothing",
        }
        [found] = [reply(*match.groups()) for form, reply in answers.items() if (match := re.fullmatch(form, text))]
        return found.split()


@pytest.mark.parametrize("task", [1, 2, 3, 6, 7, 8, 11, 12, 13])
def test_answer_is_found_again_by_replaying_the_story(task):
    for seed in range(20):
        replay = Replay()
        for sentence in drawn(task, seed)[1]:
            if "answer" in sentence:
                assert replay.answer(sentence["text"]) == sentence["answer"]
            else:
                replay.read(sentence["text"])


@pytest.mark.parametrize("task", STORIES)
def test_story_has_exactly_the_words_that_it_names(task):
    stories = [drawn(task, seed) for seed in range(60)]
    words = {word for sample, _ in stories for word in sample.labels}
    words |= {word for _, sentences in stories for sentence in sentences for word in sentence.get("answer", [])}
    assert words == {*STORIES[task][1].words.split(), "-", ".", "?"}


@pytest.mark.parametrize("task", STORIES)
def test_questions_and_facts_are_as_many_as_asked_for(task):
    story = STORIES[task][1]
    sizes = {"questions": story.most_questions} | ({"facts": 1} if story.most_facts else {})
    sample, sentences = drawn(task, 1, **sizes)
    assert sum("answer" in sentence for sentence in sentences) == story.most_questions
    assert len(sample.inputs) <= SOURCE.most_steps({"task": task, **sizes}) <= 1000


@pytest.mark.parametrize("task", STORIES)
@pytest.mark.parametrize("planning", [0, 3])
def test_story_in_a_file_is_encoded_the_same_by_training(task, planning, tmp_path):
    sample, sentences = drawn(task, 3, planning)
    lines = [
        f"{number} {sentence['text'].capitalize()}"
        + (f"\t{','.join(sentence['answer'])}\t" if "answer" in sentence else "")
        for number, sentence in enumerate(sentences, 1)
    ]
    (tmp_path / f"qa{task}_tales_train.txt").write_text("\n".join(lines) + "\n")
    trained = tasks.Babi(str(tmp_path), (task,), vocabulary=VOCABULARY, planning=planning)
    assert differences(sample, trained.sample(generator(), 1)) == []


@pytest.mark.parametrize("task", STORIES)
def test_question_follows_from_facts_before_it(task):
    for number, sentence in enumerate(drawn(task, 2)[1]):
        supports = sentence.get("supports", [])
        assert all(place < number for place in supports)
        assert not any("answer" in drawn(task, 2)[1][place] for place in supports)


SHIFTS = {"above": 1j, "below": -1j, "to the left of": -1, "to the right of": 1}
SHIFTS |= {"north of": 1j, "south of": -1j, "west of": -1, "east of": 1}
LIES = re.compile(rf"the (.+?) is ({'|'.join(SHIFTS)}) the (.+?)[.?]", re.IGNORECASE)
INSIDE = re.compile(r"the (.+) fits inside the (.+)\.|the (.+) is bigger than the (.+)\.")
FIT = re.compile(r"does the (.+) fit in the (.+)\?|is the (.+) bigger than the (.+)\?")


def placed(facts):
    """Return where each thing of the facts lies, as a complex number."""
    places, left = {LIES.fullmatch(facts[0])[3]: 0}, [LIES.fullmatch(text).groups() for text in facts]
    while left:
        one, side, other = next(fact for fact in left if {fact[0], fact[2]} & places.keys())
        left.remove((one, side, other))
        places |= {one: places[other] + SHIFTS[side]} if other in places else {other: places[one] - SHIFTS[side]}
    return places


def test_shape_lies_where_the_story_says():
    for seed in range(20):
        story = drawn(17, seed)[1]
        places = placed([sentence["text"] for sentence in story[:2]])
        for question in story[2:]:
            one, side, other = re.fullmatch(rf"is the (.+) ({'|'.join(SHIFTS)}) the (.+)\?", question["text"]).groups()
            along = (places[one] - places[other]) * SHIFTS[side].conjugate()
            assert question["answer"] == ["yes" if along.real > 0 else "no"]


def test_larger_thing_is_larger_by_way_of_a_third():
    for seed in range(20):
        story = drawn(18, seed)[1]
        pairs = [ordered(INSIDE.fullmatch(sentence["text"])) for sentence in story[:5]]
        for question in story[5:]:
            small, big = ordered(FIT.fullmatch(question["text"]))
            chain = [pairs[place] for place in question["supports"]]
            ends = (small, big) if question["answer"] == ["yes"] else (big, small)
            assert (chain[0][0], chain[1][1]) == ends
            assert chain[0][1] == chain[1][0]


def ordered(match):
    """Return the smaller thing and the larger one of a sentence, as it has them."""
    small, big, larger, smaller = match.groups()
    return (small, big) if small else (smaller, larger)


def test_way_leads_from_place_to_place():
    for seed in range(20):
        *facts, question = drawn(19, seed)[1]
        texts = [sentence["text"] for sentence in facts]
        start, end = re.fullmatch(r"how do you go from the (\w+) to the (\w+)\?", question["text"]).groups()
        first, last = (LIES.fullmatch(texts[place]).groups() for place in question["supports"])
        [middle] = {first[0], first[2]} & {last[0], last[2]}
        places = placed(texts)
        steps = [places[middle] - places[start], places[end] - places[middle]]
        assert question["answer"] == [{1j: "n", -1j: "s", 1: "e", -1: "w"}[step] for step in steps]
        assert len(places) == 6


def test_animal_fears_what_its_kind_fears():
    for seed in range(20):
        story = drawn(15, seed)[1]
        for question in story[8:]:
            named, feared = (story[place]["text"] for place in question["supports"])
            name, kind = re.fullmatch(r"(\w+) is a (\w+)\.", named).groups()
            assert question["text"] == f"what is {name} afraid of?"
            assert feared == f"{ANIMALS[kind]} are afraid of {ANIMALS[question['answer'][0]]}."


@pytest.mark.parametrize("task", [4, 15, 17, 18, 19])
def test_trained_model_finds_samples_as_hard_as_the_data(task):
    model, manifest = load(CHECKPOINTS / "dnc-babi")
    samples = [drawn(task, seed)[0] for seed in range(40)]
    right = [
        answered
        for sample, said in zip(samples, outputs(model, samples), strict=True)
        for answered in judged(sample, said)
    ]
    [measured] = [found for found in manifest.evaluation if found["options"]["tasks"] == [task]]
    assert abs(np.mean(right) - (1 - measured["errors"] / measured["asked"])) < 0.15


def outputs(model, samples):
    """Return the word that a model says at each step of each sample: [samples, steps]."""
    inputs = torch.zeros(max(len(sample.inputs) for sample in samples), len(samples), 1)
    for row, sample in enumerate(samples):
        inputs[: len(sample.inputs), row] = torch.from_numpy(sample.inputs)
    with evaluating(model):
        return unroll(model, inputs, model.initial_state(len(samples)))[0].argmax(-1).T.numpy()


def judged(sample, said):
    """Return for each question of a sample whether all words of its answer are said."""
    due = sample.targets.argmax(-1)
    asked = [sentence for sentence in sample.facts["story"] if "answer" in sentence]
    spans = [slice(sentence["to"] - len(sentence["answer"]), sentence["to"]) for sentence in asked]
    return [bool((said[span] == due[span]).all()) for span in spans]


@pytest.mark.parametrize("planning", [0, 4])
def test_phases_tell_facts_questions_and_answers_apart(planning):
    sample, _ = drawn(8, 1, planning, questions=2, facts=2)
    named = [(phase.name, sample.labels[phase.start : phase.stop]) for phase in sample.phases]
    assert [name for name, _ in named] == ["listen", "ask", *["plan"] * bool(planning), "answer"] * 2
    assert all(words == ("?",) * planning for name, words in named if name == "plan")
    assert all(set(words) == {"-"} for name, words in named if name == "answer")
    assert (sample.mask == np.array([word == "-" for word in sample.labels])).all()


def test_task_whose_words_the_model_lacks_is_no_choice():
    known = (*STORIES[1][1].words.split(), "-", ".", "?")
    assert list(Babi("none", vocabulary=known).choices()[0].values) == ["1"]
    assert list(Babi("none", tasks=(1, 17), vocabulary=known).choices()[0].values) == ["1"]
    with pytest.raises(ConfigError, match="has the words of no story"):
        Babi("none", tasks=(17,), vocabulary=known)
