"""The text analyser turns documents and queries into the terms that BM25 matches.

A text is split into words. Each word gives one or more terms: the word itself, and the other spellings that people
search it by. Spellings are searched as terms of their own, but a document's length counts words. Scripts without
spaces between words, and Korean, whose particles are joined to words, give overlapping bigrams of characters (Nie et
al., On the use of words and n-grams for Chinese information retrieval, 2000).
"""

from __future__ import annotations

import threading
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import regex
from numpy.typing import NDArray

from feedrank.engine.events.checks import check_range
from feedrank.features.spellings import fold_accents, normalise, transcribe_umlauts, without_article
from feedrank.features.stop_words import STOP_WORDS

VERSION = 1
"""Version of the rules; it is part of the fingerprint of the features."""
LENGTH_NORMALISATION = 0.75
"""Default b of BM25."""
MAX_PARTS = 6
"""A word of more parts than this, such as a web address, is searched by its parts only."""
MAX_STEMS = 100_000
"""Stems that are kept."""
_UNSPACED = (
    r"[[\p{scx=Hani}\p{scx=Hira}\p{scx=Kana}\p{scx=Bopo}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tai_Tham}"
    r"\p{Javanese}\p{Balinese}]&&[\p{L}\p{M}\p{Nl}]]"
)
_LETTER = rf"[[\p{{L}}\p{{M}}\p{{N}}]--{_UNSPACED}]"
_PIECE = rf"(?:{_LETTER}|(?<=\p{{Nd}})[.,](?=\p{{Nd}}))+"
_JOINER = r"[-‐_'&.@·\u200c]"
_UNIT = regex.compile(
    rf"(?V1)(?P<run>(?:{_UNSPACED}[・·\u200c]?)+)"
    rf"|(?P<word>(?:(?<![\p{{L}}\p{{N}}.])\.(?=\p{{L}}))?{_PIECE}(?:{_JOINER}{_PIECE})*"
    r"(?:(?:\+\+|\#)(?!\p{L})|\+(?![\p{L}\p{N}]))?)"
    r"|(?P<symbol>\p{Emoji_Presentation})"
)
_PIECES = regex.compile(rf"(?V1){_PIECE}")
_CLUSTER = regex.compile(r"\p{M}*\P{M}\p{M}*|\p{M}+")
_CASE_CHANGE = regex.compile(r"(?V1)(?<=\p{L}\p{Ll})(?=\p{Lu}\p{L})")
_DIGITS = regex.compile(r"\p{Nd}[\p{Nd}.,]*|[^\p{Nd}]+")
_GROUPED = regex.compile(r"\p{Nd}{1,3}(?:[.,]\p{Nd}{3})+")
_AFTER, _BEFORE = ".,;:!?)]}\"'*", "([{\"'*"


@dataclass(frozen=True, slots=True)
class TextSettings:
    """[text] How BM25 reads items and queries.

    Without a language, words of all languages and scripts are searched as they are written, in any case, with or
    without accents.
    """

    language: str = ""
    """Language of the texts for stemming and stop words, such as english or german: a Snowball stemmer. Empty: none."""
    stemming: bool = True
    """Whether words also match other words with the same stem; it needs a language."""
    stop_words: bool = True
    """Whether frequent function words are left out of a query that has other words; it needs a language."""
    fold_accents: bool = True
    """Whether words also match the same word without accents, such as Café and cafe."""
    field_weights: Mapping[str, float] = field(default_factory=dict)
    """Weight of a match in a field of `embedder.document`, such as {title = 2.0}; 1 for all others (BM25F)."""
    length_normalisation: Mapping[str, float] = field(default_factory=dict)
    """How far long values of a field of `embedder.document` count less: BM25's b, 0 to 1; 0.75 for all others."""

    def __post_init__(self) -> None:
        if self.language and self.language not in stemming_languages():
            raise ValueError(f"language is {self.language!r}; expected one of {', '.join(stemming_languages())}")
        for name, weight in self.field_weights.items():
            check_range(f"field_weights.{name}", weight, 0, 1_000)
        for name, b in self.length_normalisation.items():
            check_range(f"length_normalisation.{name}", b, 0, 1)

    @property
    def field_names(self) -> set[str]:
        """The fields that have a weight or a length normalisation of their own."""
        return {*self.field_weights, *self.length_normalisation}


class Word(NamedTuple):
    """One word of a text."""

    terms: tuple[str, ...]
    """The terms that a document with it has, the plainest first."""
    query_terms: tuple[str, ...]
    """The terms that a query with it asks for."""
    length: int = 1
    """What it adds to a document's length."""


class DocumentTerms(NamedTuple):
    """The terms of n documents."""

    codes: NDArray[np.int64]
    """Term codes of all documents, flattened, with repeats."""
    sizes: NDArray[np.int64]
    """(n,) number of terms of each document."""
    lengths: NDArray[np.int64]
    """(n,) length of each document in words."""


class TextAnalyser:
    """Splits documents and queries into terms, by the same rules."""

    def __init__(self, settings: TextSettings | None = None) -> None:
        self.settings = settings or TextSettings()
        language = self.settings.language
        self._stem = _stemmer(language) if language and self.settings.stemming else None
        self._cached_words = lru_cache(maxsize=4_096)(self._words)
        stop_words = STOP_WORDS.get(language, ()) if self.settings.stop_words else ()
        self._stop_words = {word.terms[0] for stop_word in stop_words for word in self._words(stop_word)}

    @property
    def fingerprint(self) -> list[Any]:
        """The version of the rules, and all settings."""
        return [VERSION, asdict(self.settings)]

    def documents(self, texts: Iterable[str], codes: dict[str, int]) -> DocumentTerms:
        """Return the terms of documents. codes: term -> code; new terms are added with the next code."""
        known: dict[str, tuple[list[int], int]] = {}  # most words of a catalogue repeat
        found: list[int] = []
        sizes: list[int] = []
        lengths: list[int] = []
        for text in texts:
            start, length = len(found), 0
            for chunk in text.split():
                entry = known.get(chunk)
                if entry is None:
                    terms, words = self._document_terms(chunk)
                    entry = known[chunk] = [codes.setdefault(term, len(codes)) for term in terms], words
                found += entry[0]
                length += entry[1]
            sizes.append(len(found) - start)
            lengths.append(length)
        return DocumentTerms(np.array(found, np.int64), np.array(sizes, np.int64), np.array(lengths, np.int64))

    def query(self, text: str, is_known: Callable[[str], bool] = lambda _: True) -> list[str]:
        """Return the terms of a query, with repeats.

        Two neighbouring words are also searched as one, if one of them is unknown and both together are known: `wi fi`
        finds what is written `WiFi`. Stop words are left out, unless there are no other words.
        """
        words = [word for chunk in text.split() for word in self._cached_words(chunk)]
        words = [word for word in words if word.terms[0] not in self._stop_words] or words
        terms = [term for word in words for term in word.query_terms]
        names = [word.query_terms[0] for word in words]
        unknown = [not is_known(name) for name in names]
        for i, (one, other) in enumerate(pairwise(names)):
            if (unknown[i] or unknown[i + 1]) and is_known(one + other):
                terms.append(one + other)
        return terms

    def _document_terms(self, chunk: str) -> tuple[Sequence[str], int]:
        """Return the terms of a part of a document, and its length in words."""
        if (plain := _plain_word(chunk)) is not None:
            return self._spellings(plain), 1
        words = self._words(chunk)
        return [term for word in words for term in word.terms], sum(word.length for word in words)

    def _words(self, chunk: str) -> list[Word]:
        """Split a text without spaces."""
        if (plain := _plain_word(chunk)) is not None:
            return [Word(terms := self._spellings(plain), terms)]
        chunk = chunk.replace("`", "'") if chunk.isascii() else normalise(chunk, self.settings.language)
        words: list[Word] = []
        for match in _UNIT.finditer(chunk):
            if match["run"]:
                words += self._run(match["run"])
            elif match["word"]:
                words.append(self._word(match["word"]))
            else:
                words.append(Word((match["symbol"],), (match["symbol"],)))
        return words

    def _word(self, text: str) -> Word:
        """Analyse a word that may have joiners, digits, and a mark of its own: Wi-Fi, iPhone15, C++, .NET."""
        pieces = [(_number(piece.group()), text[piece.end() : piece.end() + 1]) for piece in _PIECES.finditer(text)]
        parts: list[str] = []
        for index, (piece, _) in enumerate(pieces):
            elided = len(pieces) > 1 and len(piece) == 1 and "'" in (pieces[index][1], pieces[index - 1][1])
            parts += [] if elided else _parts(piece)
        marked = text.lower() if text[0] == "." or text[-1] in "+#" else ""
        whole = "".join(piece for piece, _ in pieces) if len(pieces) <= MAX_PARTS else ""
        parts = parts if len(parts) > 1 or parts != [whole] else []
        terms = [marked] if marked else []
        for part in ([whole] if whole else []) + parts:
            terms += self._spellings(part)
        unique = tuple(dict.fromkeys(terms))
        return Word(unique, unique, max(len(parts), 1))

    def _run(self, text: str) -> list[Word]:
        """Analyse a run of a script without spaces as bigrams of characters with their marks.

        A document has the single characters too, so that a query of one character finds it.
        """
        letters = _CLUSTER.findall("".join(character for character in text if character not in "・·\u200c"))
        if len(letters) == 1:
            return [Word((letters[0],), (letters[0],))]
        bigrams = [one + other for one, other in pairwise(letters)]
        last = Word((bigrams[-1], letters[-2], letters[-1]), (bigrams[-1],))
        return [Word((pair, letters[i]), (pair,)) for i, pair in enumerate(bigrams[:-1])] + [last]

    def _spellings(self, word: str) -> tuple[str, ...]:
        """Return the terms of a plain word: itself, without accents, transcribed, without its article, its stem."""
        if word.isascii():
            word = word.lower()
            if self._stem is None:
                return (word,)
            spellings = [word, self._stem(word)]
        else:
            word = unicodedata.normalize("NFKC", word.casefold()).replace("i\u0307", "i")
            stem = word if self._stem is None else self._stem(word)
            spellings = [word, stem, *without_article(word)]
            if self.settings.fold_accents:
                spellings += [transcribe_umlauts(word), fold_accents(word), fold_accents(stem)]
        return tuple(dict.fromkeys(spellings))


def stemming_languages() -> list[str]:
    """Return the languages that have a Snowball stemmer."""
    import snowballstemmer

    return [name for name in snowballstemmer.algorithms() if name not in ("porter", "dutch_porter")]


def _stemmer(language: str) -> Callable[[str], str]:
    import snowballstemmer

    known: dict[str, str] = {}
    stem, lock = snowballstemmer.stemmer(language), threading.Lock()

    def cached(word: str) -> str:
        if (found := known.get(word)) is None:
            with lock:  # the stemmer keeps the word that it works on
                found = str(stem.stemWord(word))
            if len(known) >= MAX_STEMS:
                known.clear()
            known[word] = found
        return found

    return cached


def _plain_word(chunk: str) -> str | None:
    """Return the word of ASCII letters or digits in a text without spaces; None if there is more than punctuation."""
    plain = chunk.rstrip(_AFTER).lstrip(_BEFORE)
    if plain.isascii() and ((plain.isalpha() and (plain[1:].islower() or plain.isupper())) or plain.isdigit()):
        return plain
    return None


def _number(piece: str) -> str:
    """Write numbers in one way: 1,000 and 1.000 as 1000, 3,5 as 3.5; other digits as 0 to 9."""
    if not piece.isascii():
        piece = "".join(str(unicodedata.decimal(character, character)) for character in piece)
    if "," in piece or "." in piece:
        piece = "".join(filter(str.isdigit, piece)) if _GROUPED.fullmatch(piece) else piece.replace(",", ".")
    return piece


def _parts(piece: str) -> Sequence[str]:
    """Split a word at changes from lower to upper case and between letters and digits; single letters are no parts."""
    split = [part for cased in _CASE_CHANGE.split(piece) for part in _DIGITS.findall(cased)]
    parts = [part for part in split if len(part) > 1 or part.isdigit()]
    return parts if len(parts) > 1 and len(split) <= MAX_PARTS else [piece]
