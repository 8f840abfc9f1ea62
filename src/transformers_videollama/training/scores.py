"""How right an answer is: exact match and token F1, as SQuAD counts them (section 6.1 of arXiv 1606.05250)."""

import re
import string
from collections import Counter


__all__ = ["exact_match", "normalized", "token_f1"]

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalized(text: str) -> str:
    """The text in lower case, without ASCII's punctuation, English articles and further spaces."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def exact_match(wanted: str, got: str) -> float:
    """1.0 if both are the same once they are normalized, else 0.0."""
    return float(normalized(wanted) == normalized(got))


def token_f1(wanted: str, got: str) -> float:
    """
    The harmonic mean of precision and recall over words, from 0.0 to 1.0. Languages without spaces between words count
    each run of letters as one word.
    """
    wanted_words, got_words = normalized(wanted).split(), normalized(got).split()
    if not wanted_words or not got_words:
        return float(wanted_words == got_words)
    common = sum((Counter(wanted_words) & Counter(got_words)).values())
    return 2 * common / (len(wanted_words) + len(got_words))
