"""Text to terms, in the three strengths of the BM25 baselines.

* `plain`: lower-case words.
* `stemmed`: the same words after Snowball's English stemmer.
* `tuned`: Unicode folded (compatibility forms, case, accents), numbers, units and dimensions in one
  spelling, stemmed words, neighbouring words joined ("deck over" also gives "deckover", in queries
  and in products alike, so either spelling meets the other), and character trigrams of the words.

The rules are for shopping text in English. Elsewhere they do no harm: words of other scripts stay
whole with their vowel marks, and character trigrams match inside text that is written without spaces.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Literal, get_args

import Stemmer

from uepp.lexical.units import dimensions, normalize_numbers, spell_out_fractions

Strength = Literal["plain", "stemmed", "tuned"]
STRENGTHS: tuple[Strength, ...] = get_args(Strength)

Kind = Literal["word", "joined", "trigram"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""Kinds of terms."""

_MAX_WORD_CHARS = 64  # what is longer is an identifier or noise; its head is enough to match

_APOSTROPHES_AND_PRIMES = str.maketrans(
    {"\u2019": "'", "\u2018": "'", "\u2032": "'", "\u201c": '"', "\u201d": '"', "\u2033": '"', "\u2044": "/"}
)
_SIGNS = re.compile("[®©™℠℗]")  # the compatibility form of ™ would glue "tm" to a brand
_ACCENTS = re.compile("[\u0300-\u036f]")
_APOSTROPHE_IN_WORD = re.compile(r"(?<=[^\W\d_])'(?=[^\W\d_])")
_PLAIN_WORD = re.compile(r"\w+")


def _marks() -> str:
    """The combining marks that Python's word class leaves out (Indic and Thai vowels, …), for a character class."""
    return "".join(chr(code) for code in range(0x300, 0xFFFF) if unicodedata.category(chr(code))[0] == "M")


_TUNED_WORD = re.compile(rf"\d+\.\d+(?![^\W_])|[^\W_](?:[^\W_]|[{_marks()}])*")


def fold(text: str) -> str:
    """Unicode text in one form: compatibility forms resolved, lower case, accents off, one kind of quote."""
    if text.isascii():
        return text.lower()
    text = _SIGNS.sub(" ", spell_out_fractions(text).translate(_APOSTROPHES_AND_PRIMES))
    text = unicodedata.normalize("NFKC", text).casefold().translate(_APOSTROPHES_AND_PRIMES)
    return unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFD", text)))


@lru_cache(maxsize=1 << 18)
def trigrams(word: str) -> tuple[str, ...]:
    """Character trigrams of `_word_`; the underscores mark its ends."""
    padded = f"_{word}_"
    return tuple(padded[start : start + 3] for start in range(len(padded) - 2))


@dataclass(frozen=True)
class Analyzer:
    """Turns text into terms.

    Args:
        stem: reduce words to Snowball English stems.
        folded: resolve Unicode forms and take accents off; without it text is only lower-cased.
        numbers: one spelling for numbers and units, dimensions as terms.
        kinds: which kinds of terms to give, `word` first.
    """

    stem: bool = False
    folded: bool = False
    numbers: bool = False
    kinds: tuple[Kind, ...] = ("word",)
    _stemmer: Stemmer.Stemmer = field(default_factory=lambda: Stemmer.Stemmer("english"), repr=False, compare=False)

    @classmethod
    def of(cls, strength: Strength) -> "Analyzer":
        """The analyzer of a strength. Raises `ValueError` when there is no such strength."""
        if strength not in STRENGTHS:
            raise ValueError(f"strength {strength!r}: expected one of {', '.join(STRENGTHS)}")
        if strength == "tuned":
            return cls(stem=True, folded=True, numbers=True, kinds=KINDS)
        return cls(stem=strength == "stemmed")

    def __call__(self, text: str) -> dict[str, list[str]]:
        """Terms of one text by kind, in order, with repetitions."""
        if not self.folded:
            words = _PLAIN_WORD.findall(text.lower())
            extra: list[str] = []
        else:
            text = _APOSTROPHE_IN_WORD.sub("", fold(text))
            if self.numbers:
                text = normalize_numbers(text)
            words = [word[:_MAX_WORD_CHARS] for word in _TUNED_WORD.findall(text)]
            extra = dimensions(text) if self.numbers else []
        stems = self._stems(words)
        terms: dict[str, list[str]] = {"word": stems + extra}
        if "joined" in self.kinds:
            terms["joined"] = self._stems(join_neighbours(words))
        if "trigram" in self.kinds:
            terms["trigram"] = [trigram for stem in stems for trigram in trigrams(stem)]
        return terms

    def _stems(self, words: Sequence[str]) -> list[str]:
        return self._stemmer.stemWords(words) if self.stem else list(words)


def join_neighbours(words: Sequence[str]) -> list[str]:
    """Each word glued to the next, unless both are numbers ("2", "4" is not "24")."""
    return [first + second for first, second in pairwise(words) if not (first[-1].isdigit() and second[0].isdigit())]
