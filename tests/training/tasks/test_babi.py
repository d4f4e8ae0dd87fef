"""The bAbI task on a few stories of its own."""

import json
import re

import pytest
import torch

from models.config import ConfigError
from tests.training import tiny
from tests.training.tasks.situations import STORIES, generator, right, write_stories
from training.preset import preset_from_values
from training.tasks import Babi, build_task, task_values
from training.tasks.babi_texts import split_words
from training.trainer import Trainer

WORDS = (
    *("-", ".", "?", "ann", "barn", "bob", "carrying", "cup", "hat", "is", "lake", "nothing", "pond", "ran", "the"),
    *("to", "took", "went", "what", "where"),
)


@pytest.fixture
def directory(tmp_path):
    return write_stories(tmp_path)


def story(directory, task=1, number=0, **options):
    """Return the task and the episode of one of its stories."""
    task = Babi(directory, tasks=(task,), **options)
    return task, list(task.whole(1))[number]


def as_words(task, tokens):
    return " ".join(task.vocabulary[int(token)] for token in tokens)


def test_story_is_shown_word_by_word_with_answers_marked(directory):
    task, (inputs, targets, mask, lengths) = story(directory, number=1)
    assert as_words(task, inputs[:, 0, 0]) == "bob went to the barn . where is bob ? -"
    assert mask[:, 0].tolist() == [0] * 10 + [1]
    assert lengths.tolist() == [11]
    assert targets[:10].eq(0).all()
    assert as_words(task, task.digits(targets[-1])[0]) == "barn"


def test_story_has_all_its_questions(directory):
    task, episode = story(directory)
    asked = episode.mask[:, 0] > 0
    assert as_words(task, episode.inputs[asked, 0, 0]) == "- -"
    assert as_words(task, task.digits(episode.targets)[asked, 0, 0]) == "barn lake"
    assert task.asked(episode).tolist() == [2]


def test_answer_of_several_words_is_asked_word_by_word(directory):
    task, episode = story(directory, task=8)
    words = as_words(task, episode.inputs[:, 0, 0])
    assert words.startswith("ann took the hat . ann took the cup . what is ann carrying ? - - bob ran")
    assert as_words(task, task.digits(episode.targets)[15:17, 0, 0]) == "hat cup"
    assert task.asked(episode).tolist() == [2]


@pytest.mark.parametrize(("wrong", "errors"), [([], 0), ([15], 1), ([16], 1), ([15, 16], 1), ([16, -1], 2)])
def test_answer_of_several_words_is_wrong_once(directory, wrong, errors):
    task, episode = story(directory, task=8)
    outputs = right(episode)
    outputs[wrong] *= -1
    assert task.errors(outputs, episode).tolist() == [errors]


def test_story_is_rendered_with_the_answers_in_brackets(directory):
    task, episode = story(directory, task=8)
    assert task.render(episode).splitlines() == [
        "ann took the hat.",
        "ann took the cup.",
        "what is ann carrying? [hat] [cup]",
        "bob ran to the lake.",
        "what is bob carrying? [nothing]",
    ]


def test_stories_of_several_lengths_are_padded(directory):
    (episode,) = Babi(directory, tasks=(1,)).whole(2)
    assert episode.lengths.tolist() == [28, 11]
    assert episode.mask.sum(0).tolist() == [2, 1]
    assert not episode.inputs[11:, 1].any()


def test_test_set_is_exactly_the_test_split(directory):
    task = Babi(directory, tasks=(1,))
    assert task.test_set(4) is None
    tested = list(task.with_options({"split": "test"}).test_set(4))
    whole = list(task.with_options({"split": "test"}).whole(4))
    assert [episode.inputs.tolist() for episode in tested] == [episode.inputs.tolist() for episode in whole] != []


def test_whole_has_every_story_once_in_order(directory):
    task = Babi(directory, tasks=(8, 1))
    for batch_size in (1, 2, 3, 10):
        episodes = list(task.whole(batch_size))
        lengths = [length for episode in episodes for length in episode.lengths.tolist()]
        assert lengths == [29, 28, 11]
        assert all(len(episode.lengths) == batch_size for episode in episodes[:-1])


def test_tasks_and_their_stories_are_drawn_uniformly(directory):
    episode = Babi(directory, tasks=(1, 8)).sample(generator(), 1200)
    carrying = WORDS.index("carrying")
    of_lists = (episode.inputs == carrying).any(0).squeeze(1)
    short = episode.lengths == 11
    assert abs(of_lists.sum() - 600) < 70
    assert abs(short.sum() - 300) < 60
    assert not (of_lists & short).any()


def test_vocabulary_is_the_words_of_both_splits_in_order(directory):
    task = Babi(directory, tasks=(1, 8))
    assert task.vocabulary == WORDS
    assert (task.classes, task.groups) == (20, 1)
    assert task.model_values["embedding"] == {"vocabulary_size": 20}
    assert task.model_values["output_at"] == "every-step"


def test_vocabulary_stays_where_a_task_is_measured_alone(directory):
    task = Babi(directory, tasks=(1, 8)).with_options({"tasks": [1], "split": "test"})
    (episode,) = task.whole(5)
    assert task.vocabulary == WORDS
    assert task.render(episode).splitlines() == ["bob ran to the pond.", "where is bob? [pond]"]


def test_vocabulary_given_needs_no_files(directory, tmp_path):
    values = json.loads(json.dumps(task_values(Babi(directory, tasks=(1, 8)))))
    task = build_task(values | {"directory": str(tmp_path / "elsewhere")})
    assert task.model_values["output_size"] == 20
    with pytest.raises(ConfigError, match=r"no file qa1_\*_train\*\.txt in"):
        task.sample(generator(), 1)


def test_vocabulary_in_another_order_encodes_the_same_story(directory):
    task, episode = story(directory, vocabulary=WORDS)
    other, reordered = story(directory, vocabulary=("lake", *reversed(WORDS[:10]), *WORDS[11:]))
    assert other.render(reordered) == task.render(episode)
    assert reordered.mask.tolist() == episode.mask.tolist()
    assert reordered.targets[-1, 0].tolist() == [1] + [0] * 19


def test_vocabulary_without_a_word_of_the_stories_names_it(directory):
    task = Babi(directory, tasks=(1,), vocabulary=tuple(word for word in WORDS if word != "pond"))
    task.sample(generator(), 1)
    with pytest.raises(ConfigError) as caught:
        task.with_options({"split": "test"}).sample(generator(), 1)
    assert str(caught.value) == (
        f"Babi.vocabulary has no word 'pond', which is in task 1 (test) of {directory!r}; leave it out to have the "
        "words collected from the files"
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Well-known: it's 3.", ["well-known", ":", "it's", "3", "."]),
        ("cafe\u0301 na\u0308ive", ["caf\xe9", "n\xe4ive"]),
        (
            "\u0939\u093f\u0928\u094d\u0926\u0940 x\u0323\u0307y",
            ["\u0939\u093f\u0928\u094d\u0926\u0940", "\u1e8b\u0323y"],
        ),
        ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", ["\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"]),
        ("he - she -5", ["he", "\u2013", "she", "\u2013", "5"]),
    ],
)
def test_text_is_split_into_words_with_their_combining_marks(text, words):
    assert split_words(text) == words


def test_hyphen_that_stands_alone_asks_for_nothing(tmp_path):
    text = "1 Ann - my friend - ran.\n2 Where is Ann?\tlake\t1\n"
    task = Babi(write_stories(tmp_path, STORIES | {"qa1_where_train.txt": text}), tasks=(1,))
    (episode,) = task.whole(1)
    signs = episode.inputs[:, 0, 0] == task.vocabulary.index("-")
    assert signs.tolist() == (episode.mask[:, 0] > 0).tolist()
    assert as_words(task, episode.inputs[:7, 0, 0]) == "ann \u2013 my friend \u2013 ran ."


def test_byte_order_marks_and_foreign_line_ends_change_nothing(directory, tmp_path):
    text = STORIES["qa1_where_train.txt"]
    (tmp_path / "other").mkdir()
    odd = "\ufeff" + text.replace("went to", "went\u2028to").replace("\n", "\r\n") + "\r\n \n"
    other = write_stories(tmp_path / "other", STORIES | {"qa1_where_train.txt": odd})
    (one,), (two,) = (Babi(where, tasks=(1,)).whole(9) for where in (directory, other))
    assert torch.equal(one.inputs, two.inputs)
    assert torch.equal(one.targets, two.targets)


def test_files_of_a_split_are_read_together(directory, tmp_path):
    more = tmp_path / "more"
    more.mkdir()
    stories = STORIES["qa1_where_train.txt"]
    parts = {"qa1_where_train_1k.txt": stories, "qa1_where_train_2nd1k.txt": stories, "qa11_where_train.txt": stories}
    write_stories(more, STORIES | parts)
    assert [len(episode.lengths) for episode in Babi(str(more), tasks=(1,)).whole(100)] == [6]


def test_files_are_read_once(directory, tmp_path):
    task = Babi(directory, tasks=(1,))
    for path in tmp_path.iterdir():
        path.unlink()
    assert task.sample(generator(), 3).lengths.max() <= 28
    assert Babi(directory, tasks=(1,)) == task


@pytest.mark.parametrize(("max_words", "lengths"), [(28, [28, 11]), (27, [17, 11]), (17, [17, 11]), (16, [11])])
def test_long_story_ends_with_its_last_answer_within_the_words(directory, max_words, lengths):
    (episode,) = Babi(directory, tasks=(1,), max_words=max_words).whole(9)
    assert episode.lengths.tolist() == lengths
    assert [int(episode.mask[length - 1, row]) for row, length in enumerate(lengths)] == [1] * len(lengths)


@pytest.mark.parametrize(("max_words", "length"), [(30, 30), (29, 17)])
def test_answer_of_several_words_is_not_cut_in_two(tmp_path, max_words, length):
    story = STORIES["qa8_lists_train.txt"].replace("nothing\t", "hat,cup\t1 2")
    directory = write_stories(tmp_path, STORIES | {"qa8_lists_train.txt": story})
    (episode,) = Babi(directory, tasks=(8,), max_words=max_words).whole(9)
    assert episode.lengths.tolist() == [length]


def test_story_without_an_early_answer_leaves_training_only(directory):
    short = Babi(directory, tasks=(1,), max_words=10)
    assert [episode.lengths.tolist() for episode in short.with_options({"split": "test"}).whole(9)] == [[11]]
    with pytest.raises(ConfigError) as caught:
        short.sample(generator(), 1)
    assert str(caught.value) == "Babi.max_words: task 1 has no story with an answer within 10 words"


def test_story_without_a_question_is_trained_on_without_a_word(tmp_path):
    changed = {"qa1_where_train.txt": STORIES["qa1_where_train.txt"] + "1 Ann went to the barn.\n"}
    task = {"name": "babi", "directory": write_stories(tmp_path, STORIES | changed), "tasks": [1]}
    model = {"kind": "rnn", "controller": tiny.LSTM, "embedding": {"size": 4}}
    values = tiny.values(batch_size=1, validate_every=100) | {"task": task, "model": model}
    trainer = Trainer(preset_from_values(values))
    trainer.check_tasks()
    updates = [trainer.update() for _ in range(20)]
    assert {update.asked for update in updates} == {True, False}
    assert {update.skipped for update in updates} == {None}


def test_drawing_from_the_same_seed_repeats_after_another_task(directory):
    task = Babi(directory, tasks=(1, 8))
    first = task.sample(generator(3), 8)
    task.with_options({"tasks": [8]}).sample(generator(4), 8)
    assert torch.equal(task.sample(generator(3), 8).inputs, first.inputs)


@pytest.mark.parametrize(
    ("text", "place", "line"),
    [
        ("Ann went to the barn.\n", 1, "Ann went to the barn."),
        ("2 Ann went to the barn.\n", 1, "2 Ann went to the barn."),
        ("1 Ann ran.\n3 Where is Ann?\tlake\t1\n", 2, "3 Where is Ann?\\tlake\\t1"),
        ("1 Ann ran.\n\n2 Bob ran.\n", 2, ""),
        ("1 Ann ran.\n2 \n", 2, "2 "),
        ("1 Where is Ann?\t\t1\n", 1, "1 Where is Ann?\\t\\t1"),
        ("1 Where is Ann?\tlake\tfour\n", 1, "1 Where is Ann?\\tlake\\tfour"),
    ],
)
def test_line_that_cannot_be_read_is_named(tmp_path, text, place, line):
    directory = write_stories(tmp_path, STORIES | {"qa1_where_test.txt": text})
    with pytest.raises(ConfigError) as caught:
        Babi(directory, tasks=(1,))
    assert f"qa1_where_test.txt, line {place}: expected a number" in str(caught.value)
    assert str(caught.value).endswith(f"; got '{line}'")


@pytest.mark.parametrize(
    ("content", "complaint"), [(b"", "is empty"), (b"\n \n", "is empty"), (b"1 caf\xe9\n", "codec can't decode")]
)
def test_file_that_cannot_be_read_is_named(directory, tmp_path, content, complaint):
    (tmp_path / "qa8_lists_test.txt").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"qa8_lists_test\.txt.* {complaint}"):
        Babi(directory, tasks=(1, 8))


def test_files_missing_name_the_directory_and_where_to_get_them(directory):
    with pytest.raises(ConfigError) as caught:
        Babi(directory, tasks=(1, 2))
    assert str(caught.value) == (
        f"Babi.directory: no file qa2_*_train*.txt in {directory!r}; it must be a directory of the bAbI texts, such as "
        "en-10k of tasks_1-20_v1-2.tar.gz (research.facebook.com/downloads/babi)"
    )


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"tasks": []}, "Babi.tasks must be different numbers from 1 to 20, got []"),
        ({"tasks": [1, 1]}, "Babi.tasks must be different numbers from 1 to 20, got [1, 1]"),
        ({"tasks": [0, 1]}, "Babi.tasks must be different numbers from 1 to 20, got [0, 1]"),
        ({"tasks": [21]}, "Babi.tasks must be different numbers from 1 to 20, got [21]"),
        ({"max_words": 0}, "Babi.max_words must be at least 1, got 0"),
        ({"cloze": ["1: 0"]}, "Babi.cloze must be such as '19: 2', a task and a whole number from 1 to 99, got '1: 0'"),
        (
            {"cloze": ["21: 2"]},
            "Babi.cloze must be such as '19: 2', a task and a whole number from 1 to 99, got '21: 2'",
        ),
        ({"cloze": ["1: 2", "1: 1"]}, "Babi.cloze must name no task twice, got ['1: 2', '1: 1']"),
        ({"shares": ["1:2"]}, "Babi.shares must be such as '19: 2', a task and a number from 0.001 to 999, got '1:2'"),
        (
            {"shares": ["1: 0.0"]},
            "Babi.shares must be such as '19: 2', a task and a number from 0.001 to 999, got '1: 0.0'",
        ),
        (
            {"cloze": ["1: 2"], "vocabulary": ["-", "."]},
            "Babi.cloze needs the word '?', which the vocabulary lacks; leave it out",
        ),
        ({"split": "valid"}, "task.split: expected one of 'train', 'test', got 'valid'"),
        (
            {"vocabulary": ["ann", "-", "ann"]},
            "Babi.vocabulary must have the word '-' and no word twice, got ['ann', '-', 'ann']; leave it out to have "
            "the words collected from the files",
        ),
    ],
)
def test_bad_option_is_named(directory, options, complaint):
    with pytest.raises(ConfigError) as caught:
        build_task({"name": "babi", "directory": directory, **options})
    assert str(caught.value) == complaint


def test_directory_missing_is_named():
    with pytest.raises(ConfigError, match="task: key 'directory' is missing"):
        build_task({"name": "babi"})


EXCHANGED = ("1: ann bob", "1: barn lake pond")


def test_interchangeable_words_are_exchanged_in_stories_and_answers(directory):
    task = Babi(directory, tasks=(1,), interchangeable=EXCHANGED)
    stories = {task.render(task.sample(generator(seed), 1)) for seed in range(300)}
    names, places = ("ann", "bob"), ("barn", "lake", "pond")
    short = {f"{name} went to the {place}.\nwhere is {name}? [{place}]" for name in names for place in places}
    assert short == {story for story in stories if story.count("\n") == 1}
    assert len(stories) == 2 * 2 * 6 - 6  # one place of the short story, two of three of the other


@pytest.mark.parametrize("options", [{"split": "test"}, {"tasks": (8,)}])
def test_stories_of_the_test_and_of_other_tasks_stay(directory, options):
    task = Babi(directory, **{"tasks": (1,), **options}, vocabulary=WORDS, interchangeable=EXCHANGED)
    plain = {task.render(episode) for episode in task.whole(1)}
    assert {task.render(task.sample(generator(seed), 1)) for seed in range(50)} == plain


@pytest.mark.parametrize("text", ["1: ann", "ann bob", "1: ann ann", "one: ann bob", "1: ann carol"])
def test_list_that_cannot_be_exchanged_is_refused(directory, text):
    with pytest.raises(ConfigError, match=f"number of a task and at least two different words .* got '{text}'"):
        Babi(directory, tasks=(1,), interchangeable=(text,))


CLOZE = {
    *("? went to the barn. [bob]", "bob ? to the barn. [went]", "bob went ? the barn. [to]"),
    *("bob went to ? barn. [the]", "bob went to the ?. [barn]"),
}
"""The short story's only sentence again, each of its words left out."""


def test_cloze_asks_for_a_word_of_a_sentence_again(directory):
    task = Babi(directory, tasks=(1,), cloze=("1: 1",), max_words=11)
    ends = {task.render(task.sample(generator(seed), 1)).partition("[barn]")[2] for seed in range(100)}
    assert {" ".join(end.split()) for end in ends} == CLOZE


def test_cloze_is_of_the_words_that_were_exchanged(directory):
    task = Babi(directory, tasks=(1,), cloze=("1: 3",), interchangeable=("1: barn lake pond",))
    for seed in range(100):
        said, *asked = task.render(task.sample(generator(seed), 1)).rsplit("?", 1)[0].split("]\n")
        places = {"barn", "lake", "pond"} & set(re.findall(r"\w+", " ".join(asked)))
        assert places <= set(re.findall(r"\w+", said))


def test_cloze_of_a_cut_story_is_of_what_is_left(directory):
    task = Babi(directory, tasks=(1,), cloze=("1: 2",), max_words=17)
    clozes = " ".join(task.render(task.sample(generator(seed), 1)).partition("[barn]")[2] for seed in range(200))
    assert "bob ? to the lake" in clozes
    assert "ann ? to the lake" not in clozes  # said behind the first question


def test_cloze_has_its_steps_of_planning(directory):
    task = Babi(directory, tasks=(1,), cloze=("1: 2",), planning=2, max_words=13)
    inputs, _, mask, lengths = task.sample(generator(), 1)
    asked = mask[:, 0].nonzero()[:, 0].tolist()
    assert lengths.tolist() == [13 + 2 * 9]
    assert asked == [12, 21, 30]
    assert [as_words(task, inputs[at - 2 : at + 1, 0, 0]) for at in asked] == ["? ? -"] * 3


def test_cloze_leaves_other_tasks_and_the_test_alone(directory):
    task = Babi(directory, tasks=(1, 8), cloze=("8: 2",))
    drawn = [task.sample(generator(seed), 1) for seed in range(50)]
    assert {int(task.asked(episode)) for episode in drawn} == {1, 2, 4}  # task 8 has two questions, and two more
    assert {int(task.asked(episode)) for episode in task.with_options({"split": "test"}).whole(1)} == {1}


def test_cloze_of_each_row_is_of_its_own_story(directory):
    task = Babi(directory, tasks=(1, 8), cloze=("1: 1", "8: 3"))
    episode = task.sample(generator(), 64)
    assert episode.lengths.max() == len(episode.mask)
    for row in range(64):
        lines = task.render(episode, row).splitlines()
        clozes = [line for line in lines if "?" in line and ". [" in line]
        assert len(clozes) == (3 if "hat" in lines[0] else 1)
        for cloze in clozes:
            sentence, word = cloze.rstrip("]").split(" [")
            assert sentence.replace("?", word) in lines


def test_story_without_a_sentence_has_no_cloze(tmp_path):
    text = "1 Who is there? \tann\t1\n"
    (tmp_path / "qa1_who_train.txt").write_text(text)
    (tmp_path / "qa1_who_test.txt").write_text(text)
    task = Babi(str(tmp_path), tasks=(1,), cloze=("1: 2",))
    assert task.render(task.sample(generator(), 4), 3) == "who is there? [ann]"


def test_shares_say_how_often_a_task_is_drawn(directory):
    task = Babi(directory, tasks=(1, 8), vocabulary=WORDS, shares=("8: 3",))
    episode = task.sample(generator(), 4000)
    of_task_8 = [task.render(episode, row).startswith("ann took") for row in range(4000)]
    assert sum(of_task_8) / 4000 == pytest.approx(3 / 4, abs=0.03)
    assert Babi(directory, tasks=(1,), vocabulary=WORDS, shares=("8: 3",)).sample(generator(), 2).lengths.shape == (2,)


def test_options_of_tasks_that_are_not_drawn_do_nothing(directory):
    options = {"cloze": ("1: 2",), "shares": ("1: 9",), "interchangeable": EXCHANGED}
    plain, other = Babi(directory, tasks=(8,)), Babi(directory, tasks=(8,), **options)
    assert {other.render(other.sample(generator(seed), 1)) for seed in range(5)} == {plain.render(*plain.whole(1))}
