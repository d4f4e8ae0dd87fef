"""Dyck words by hand, and their distribution against all possible words."""

import itertools
from collections import Counter

import pytest
import torch

from models.config import ConfigError
from tests.training.tasks.situations import generator, right
from training.tasks import DyckWords, Episode, join
from training.tasks.dyck import BRACKETS, is_valid


def valid_by_stack(word):
    """Return whether a word is valid, by a stack of open brackets."""
    waiting = []
    for bracket in word:
        if BRACKETS.index(bracket) % 2 == 0:
            waiting.append(bracket)
        elif not waiting or BRACKETS.index(waiting.pop()) + 1 != BRACKETS.index(bracket):
            return False
    return not waiting


def words_of(task, count, valid=None):
    """Return `count` words, valid, invalid or both."""
    episode = task.sample(generator(), count)
    rows = [task.render(episode, row).split("  ") for row in range(count)]
    return [word for word, verdict in rows if valid is None or (verdict == "valid") == valid]


def tokens(*words):
    return torch.tensor([[BRACKETS.index(bracket) for bracket in word] for word in words])


def balanced(word):
    pairs = zip(BRACKETS[::2], BRACKETS[1::2], strict=True)
    return all(word.count(opening) == word.count(closing) for opening, closing in pairs)


def reachable(word):
    """Return whether a word is a valid one shuffled, or one with one bracket changed."""
    one_off = (word[:place] + other + word[place + 1 :] for place in range(len(word)) for other in "()[]")
    return balanced(word) or any(map(valid_by_stack, one_off))


def test_episode_asks_for_validity_at_the_last_step():
    task = DyckWords(length=(1, 1))
    inputs, targets, mask, lengths = task.sample(generator(), 40)
    for word, answer in zip(inputs[:, :, 0].T.tolist(), targets[-1].tolist(), strict=True):
        assert answer == ([0, 1] if word == [0, 1] else [1, 0])
    assert not targets[0].any()
    assert mask.T.tolist() == [[0, 1]] * 40
    assert lengths is None


@pytest.mark.parametrize(("kinds", "longest"), [(1, 10), (2, 6)])
def test_validity_of_every_word_agrees_with_a_stack(kinds, longest):
    for size in range(2, longest + 1, 2):
        words = list(itertools.product(BRACKETS[: 2 * kinds], repeat=size))
        assert is_valid(tokens(*words)).tolist() == [valid_by_stack(word) for word in words]


@pytest.mark.parametrize("word", ["([)]", "())(", "((()", "()))", "[)", "(]", "([{<>]})"])
def test_validity_of_words_with_wrong_order_kind_or_number(word):
    assert is_valid(tokens(word)).tolist() == [False]


@pytest.mark.parametrize("word", ["()", "([])", "[](){}<>", "([{<>}])()"])
def test_validity_of_a_word_that_is_right(word):
    assert is_valid(tokens(word)).tolist() == [True]


@pytest.mark.parametrize("kinds", [1, 2, 4])
def test_words_are_valid_as_labelled(kinds):
    task = DyckWords(kinds=kinds, length=(1, 9))
    draw = generator()
    for _ in range(30):
        episode = task.sample(draw, 10)
        for row in range(10):
            word, verdict = task.render(episode, row).split("  ")
            assert verdict == ("valid" if valid_by_stack(word) else "not valid")


def test_words_are_valid_half_of_the_time():
    assert abs(len(words_of(DyckWords(kinds=2), 1000, valid=True)) - 500) < 60


def test_valid_words_of_one_kind_are_uniform():
    counts = Counter(words_of(DyckWords(length=(3, 3)), 2000, valid=True))
    assert set(counts) == {"((()))", "(()())", "(())()", "()(())", "()()()"}
    assert all(150 < count < 250 for count in counts.values())


def test_valid_words_of_two_kinds_are_uniform():
    counts = Counter(words_of(DyckWords(kinds=2, length=(2, 2)), 3200, valid=True))
    assert set(counts) == {"()()", "()[]", "[]()", "[][]", "(())", "([])", "[()]", "[[]]"}
    assert all(150 < count < 250 for count in counts.values())


def test_invalid_words_are_all_shuffles_and_changes():
    words = {"".join(word) for word in itertools.product("()[]", repeat=4)}
    found = set(words_of(DyckWords(kinds=2, length=(2, 2)), 20000, valid=False))
    assert found == {word for word in words if not valid_by_stack(word) and reachable(word)}


def test_invalid_words_keep_their_brackets_two_times_of_three():
    for kinds in (1, 2):
        words = words_of(DyckWords(kinds=kinds, length=(8, 8)), 2000, valid=False)
        assert abs(sum(map(balanced, words)) / len(words) - 2 / 3) < 0.06


def test_words_not_valid_are_often_wrong_in_their_order_alone():
    words = words_of(DyckWords(kinds=2, length=(8, 8)), 2000, valid=False)
    ordered = [word for word in words if valid_by_stack(word.replace("[", "(").replace("]", ")"))]
    assert 0.05 < len(ordered) / len(words) < 0.5


def test_word_is_rendered_as_brackets():
    task = DyckWords(kinds=4)
    targets = task.one_hot(torch.tensor([[[1], [0]]])).expand(8, 2, 2)
    episode = Episode(tokens("([{<>}])", "([{<}>])").T.unsqueeze(2), targets, torch.ones(8, 2))
    assert [task.render(episode, row) for row in (0, 1)] == ["([{<>}])  valid", "([{<}>])  not valid"]


def test_words_of_mixed_lengths_are_answered_at_their_ends():
    task = DyckWords()
    parts = [DyckWords(length=(pairs, pairs)).sample(generator(pairs), 1) for pairs in (2, 5, 1)]
    episode = join(parts)
    assert episode.lengths.tolist() == [4, 10, 2]
    assert episode.mask.argmax(0).tolist() == [3, 9, 1]
    outputs = right(episode)
    outputs[9, 1] *= -1
    assert task.errors(outputs, episode).tolist() == [0, 1, 0]


def test_model_takes_all_brackets_and_answers_at_the_end():
    values = DyckWords(kinds=3).model_values
    assert values["embedding"] == {"vocabulary_size": 6}
    assert (values["input_size"], values["output_size"]) == (1, 2)
    assert (values["output_activation"], values["output_at"]) == ("softmax", "last-step")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"kinds": 0}, "DyckWords.kinds must be at least 1, got 0"),
        ({"kinds": 5}, "DyckWords.kinds must be at most 4, got 5"),
        ({"length": (0, 3)}, "DyckWords.length must be [least, greatest] with 1 <= least <= greatest, got [0, 3]"),
    ],
)
def test_bad_option_is_named(options, complaint):
    with pytest.raises(ConfigError) as caught:
        DyckWords(**options)
    assert str(caught.value) == complaint
