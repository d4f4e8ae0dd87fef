"""The right word for a wrong one."""

from collections.abc import Iterable

LEAST_LIKE = 0.7
"""Letters of both words that are alike and in the same order, as a part of all, of a word that is suggested."""


def suggestion(word: str, words: Iterable[str]) -> str:
    """Return ` Did you mean X?` of the word nearest to a wrong one; empty where none is near."""
    from difflib import get_close_matches

    by_letters = {right.lstrip("-"): right for right in words}
    nearest = get_close_matches(word.lstrip("-"), by_letters, n=1, cutoff=LEAST_LIKE)
    return f" Did you mean {by_letters[nearest[0]]}?" if nearest else ""
