"""Samples of bAbI: stories of templates, whose answers are found again, and which training reads from a file."""

import json
import re

import numpy as np
import pytest

from models.config import ConfigError
from models.episodes.babi import Babi
from models.episodes.base import choose, draw
from models.episodes.stories import NUMBERS, STORIES, WENT
from tests.app.harness import CHECKPOINTS
from tests.models.episodes.encoding import differences
from tests.training.tasks.situations import generator
from training import tasks

VOCABULARY = tuple(json.loads((CHECKPOINTS / "dnc-babi" / "manifest.json").read_text())["task"]["vocabulary"])
SOURCE = Babi(directory="none", vocabulary=VOCABULARY)

MOVE = re.compile(rf"(?P<who>.+?) (?:{'|'.join(WENT)}) to the (?P<place>\w+)\.")
TAKE = re.compile(r"(?P<who>\w+) (?:got|grabbed|picked up|took) the (?P<thing>\w+)(?: there)?\.")
DROP = re.compile(r"(?P<who>\w+) (?:discarded|dropped|left|put down) the (?P<thing>\w+)(?: there)?\.")


def told(task, seed, **asked):
    texts = {name: str(value) for name, value in asked.items()}
    sample = draw(SOURCE, seed, choose(SOURCE, seed, {"task": str(task), **texts}))
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
        for sentence in told(task, seed)[1]:
            if "answer" in sentence:
                assert replay.answer(sentence["text"]) == sentence["answer"]
            else:
                replay.read(sentence["text"])


@pytest.mark.parametrize("task", STORIES)
def test_story_has_exactly_the_words_that_it_names(task):
    stories = [told(task, seed) for seed in range(60)]
    words = {word for sample, _ in stories for word in sample.labels}
    words |= {word for _, sentences in stories for sentence in sentences for word in sentence.get("answer", [])}
    assert words == {*STORIES[task][1].words.split(), "-", ".", "?"}


@pytest.mark.parametrize("task", STORIES)
def test_questions_and_facts_are_as_many_as_asked_for(task):
    story = STORIES[task][1]
    sizes = {"questions": story.most_questions} | ({"facts": 1} if story.most_facts else {})
    sample, sentences = told(task, 1, **sizes)
    assert sum("answer" in sentence for sentence in sentences) == story.most_questions
    assert len(sample.inputs) <= SOURCE.most_steps({"task": task, **sizes}) <= 1000


@pytest.mark.parametrize("task", STORIES)
def test_story_in_a_file_is_encoded_the_same_by_training(task, tmp_path):
    sample, sentences = told(task, 3)
    lines = [
        f"{number} {sentence['text'].capitalize()}"
        + (f"\t{','.join(sentence['answer'])}\t" if "answer" in sentence else "")
        for number, sentence in enumerate(sentences, 1)
    ]
    (tmp_path / f"qa{task}_tales_train.txt").write_text("\n".join(lines) + "\n")
    trained = tasks.Babi(str(tmp_path), (task,), vocabulary=VOCABULARY)
    assert differences(sample, trained.sample(generator(), 1)) == []


@pytest.mark.parametrize("task", STORIES)
def test_question_follows_from_facts_before_it(task):
    for number, sentence in enumerate(told(task, 2)[1]):
        supports = sentence.get("supports", [])
        assert all(place < number for place in supports)
        assert not any("answer" in told(task, 2)[1][place] for place in supports)


def test_phases_tell_facts_questions_and_answers_apart():
    sample, _ = told(8, 1, questions=2, facts=2)
    named = [(phase.name, sample.labels[phase.start : phase.stop]) for phase in sample.phases]
    assert [name for name, _ in named] == ["listen", "ask", "answer"] * 2
    assert all(set(words) == {"-"} for name, words in named if name == "answer")
    assert (sample.mask == np.array([word == "-" for word in sample.labels])).all()


def test_task_whose_words_the_model_lacks_is_no_choice():
    known = (*STORIES[1][1].words.split(), "-", ".", "?")
    assert list(Babi("none", vocabulary=known).choices()[0].values) == ["1"]
    assert list(Babi("none", tasks=(4, 17), vocabulary=VOCABULARY).choices()[0].values) == ["4"]
    with pytest.raises(ConfigError, match="has the words of no story"):
        Babi("none", tasks=(17,), vocabulary=VOCABULARY)
