"""Spellings of one word: the characters that stand for the same one, and the forms that people search it by."""

from __future__ import annotations

import unicodedata

import regex

_BEFORE_NFKC = str.maketrans(
    dict.fromkeys("’‘ʼʹ′´`＇‛׳ꞌ", "'")
    | dict.fromkeys("™℠", " ")
    | dict.fromkeys("\u200b", "\u200c")  # zero-width space and non-joiner: both may stand between parts of a word
    | dict.fromkeys("\u00ad\u034f\u061c\u180e\u200d\u200e\u200f\u2060\ufeff", "")
    | {chr(code): "" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A), *range(0xFE00, 0xFE10))}
)
_HEBREW_POINTS = "".join(map(chr, (*range(0x0591, 0x05BE), 0x05BF, 0x05C1, 0x05C2, 0x05C4, 0x05C5, 0x05C7)))
_ARABIC_MARKS = "".join(
    map(chr, (0x0640, *range(0x0610, 0x061B), *range(0x064B, 0x0660), 0x0670, *range(0x06D6, 0x06EE)))
)
_AFTER_NFKC = str.maketrans(
    dict.fromkeys(_HEBREW_POINTS + _ARABIC_MARKS, "")
    | dict.fromkeys("آأإٱ", "ا")
    | dict.fromkeys("ىیې", "ي")
    | dict.fromkeys("ةہھۀۂۃە", "ه")
    | {"ک": "ك"}
    | {chr(code): chr(code - 0x60) for code in range(0x30A1, 0x30F7)}  # katakana as hiragana
)
_NO_DECOMPOSITION = str.maketrans(
    {
        "ø": "o",
        "đ": "d",
        "ł": "l",
        "ħ": "h",
        "ŧ": "t",
        "æ": "ae",
        "œ": "oe",
        "þ": "th",
        "ð": "d",
        "ı": "i",
        "ŋ": "n",
        "ə": "e",
    }
)
_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa"})
_ABBREVIATION = regex.compile(r"(?<=\p{Hebrew})[\"״](?=\p{Hebrew})")
_ACCENTS = regex.compile(r"(?<=[\p{Latin}\p{Greek}])\p{M}+|(?<=\p{Cyrillic})[\u0300\u0301\u0308]+")
_NUKTA = regex.compile("[\u093c\u09bc\u0a3c\u0abc\u0b3c]")
_NASAL = regex.compile("[\u0928\u0919\u091e\u0923\u092e]\u094d(?=[\u0915-\u092d\u092f-\u0939])")
_ARABIC_ARTICLE = regex.compile(r"(?:[وفبك]?ال|لل)(?=\p{Arabic}{3})")
_HEBREW_ARTICLE = regex.compile(r"ה(?=\p{Hebrew}{3})")


def normalise(text: str, language: str = "") -> str:
    """Return a text in NFKC, with one character for all that mean the same; the case stays.

    Optional vowel signs of Arabic and Hebrew, soft hyphens and invisible marks of direction are dropped. In Turkish
    and Azerbaijani texts the capitals of dotted and dotless i are written small.
    """
    if language == "turkish":
        text = text.replace("I", "ı").replace("İ", "i")
    text = unicodedata.normalize("NFKC", text.translate(_BEFORE_NFKC))
    return str(_ABBREVIATION.sub("", text.translate(_AFTER_NFKC)))


def fold_accents(word: str) -> str:
    """Return a lower-case word without accents.

    Latin, Greek and Cyrillic letters lose their marks, but й and its like stay letters. In Devanagari, nukta and
    chandrabindu go, and a nasal before a consonant is written as anusvara.
    """
    if word.isascii():
        return word
    folded = _ACCENTS.sub("", unicodedata.normalize("NFD", word.translate(_NO_DECOMPOSITION)))
    folded = _NASAL.sub("\u0902", _NUKTA.sub("", folded)).replace("\u0901", "\u0902")
    return unicodedata.normalize("NFKC", folded)


def transcribe_umlauts(word: str) -> str:
    """Return a lower-case word with ae, oe, ue and aa for letters that are also written so."""
    return word.translate(_UMLAUTS)


def without_article(word: str) -> tuple[str, ...]:
    """Return the word without the Arabic or Hebrew article that is joined to it; nothing if it has none."""
    for article in (_ARABIC_ARTICLE, _HEBREW_ARTICLE):
        if match := article.match(word):
            return (word[match.end() :],)
    return ()
