"""The text analyser: any word of any text finds it, however it is written; stems and stop words by language."""

from __future__ import annotations

import unicodedata

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from feedrank.features.bm25 import TermWeights
from feedrank.features.stop_words import STOP_WORDS
from feedrank.features.text_analyser import TextAnalyser, TextSettings, stemming_languages

SAMPLES = (
    "Straßenbahn Café Ærø İstanbul Ισμήνη Ὀδυσσεύς Ёлка йогурт כִּתָּה الكِتابُ می‌روم हिन्दी क़लम "
    "தமிழ் বাংলা ไทยง่ายๆ ລາວ ខ្មែរ မြန်မာ 東京タワー 機器學習 机器学习 서울에서 ﾄｳｷｮｳ ＡＢＣ "
    "Wi-Fi iPhone15 C++ AT&T l’été don't 3.5mm Tiếng Việt ǅ ﬁn ½ 🍕 #BlackFriday"
)
WRITTEN = st.lists(st.one_of(st.sampled_from(SAMPLES.split()), st.text(min_size=1, max_size=8)), min_size=1, max_size=5)


def terms_of(text: str, analyser: TextAnalyser | None = None) -> set[str]:
    codes: dict[str, int] = {}
    (analyser or TextAnalyser()).documents([text], codes)
    return set(codes)


@settings(deadline=None, max_examples=300)
@given(words=WRITTEN)
def test_a_text_is_found_by_each_of_its_words(words: list[str]) -> None:
    text = " ".join(words)
    held = terms_of(text)
    for asked in (*text.split(), text):
        assert set(TextAnalyser().query(asked)) <= held


@settings(deadline=None, max_examples=300)
@given(words=WRITTEN, form=st.sampled_from(["NFC", "NFD"]))
def test_normal_forms_of_unicode_are_one(words: list[str], form: str) -> None:
    text = " ".join(words)
    assert terms_of(unicodedata.normalize(form, text)) == terms_of(text)


@settings(deadline=None, max_examples=200)
@given(text=st.text(max_size=40))
def test_any_text_can_be_analysed(text: str) -> None:
    for analyser in (
        TextAnalyser(),
        TextAnalyser(TextSettings("turkish")),
        TextAnalyser(TextSettings(fold_accents=False)),
    ):
        found = analyser.documents([text], {})
        assert found.sizes[0] >= found.lengths[0] >= 0
        assert all(term.strip() == term for term in analyser.query(text))


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_a_part_of_a_text_without_spaces_finds_it(data: st.DataObject) -> None:
    text = data.draw(
        st.sampled_from(["東京タワーの夜景", "機器學習入門教程", "서울에서", "อาหารไทยง่ายๆ", "မြန်မာစာ", "ភាសាខ្មែរ"])
    )
    letters = regex.findall(r"\P{M}\p{M}*", text)  # with their vowel signs
    start = data.draw(st.integers(0, len(letters) - 1))
    part = "".join(letters[start : data.draw(st.integers(start + 1, len(letters)))])
    assert set(TextAnalyser().query(part)) & terms_of(text)


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("Café crème", "cafe"), ("cafe", "Café"), ("CAFE\u0301", "café"), ("Straße", "STRASSE"), ("Müller", "Mueller"),
        ("Mueller", "Müller"), ("Ærøskøbing", "aeroskobing"), ("Łódź", "lodz"), ("đường phố", "duong pho"),
        ("İstanbul", "istanbul"), ("DİYARBAKIR", "diyarbakır"), ("ısı", "ISI"), ("Ὀδυσσεύς", "οδυσσευς"),
        ("ΟΔΥΣΣΕΥΣ", "Οδυσσεύς"), ("Ёлка", "елка"), ("замо\u0301к", "замок"), ("שָׁלוֹם", "שלום"), ("צה״ל", 'צה"ל'),
        ("הספר", "ספר"), ("الكِتَابُ", "كتاب"), ("کتاب", "كتاب"), ("أحمد", "احمد"), ("مدرسة", "مدرسه"),
        ("می‌روم", "میروم"), ("می‌روم", "می روم"), ("हिन्दी", "हिंदी"), ("क़लम", "कलम"), ("१२३", "123"), ("٣", "3"),
        ("タワー", "ﾀﾜｰ"), ("ネコ", "ねこ"), ("ハリー・ポッター", "ハリーポッター"), ("가", "\u1100\u1161"),
        ("책을 읽다", "책"), ("犬の散歩", "犬"), ("ปูผัด", "ปู"), ("ＡＢＣ１", "abc1"),
        ("iPhone15", "iphone 15"), ("iPhone 15", "iphone15"), ("Wi-Fi", "wifi"), ("WiFi", "wi-fi"), ("Wi‑Fi", "wi fi"),
        ("e-mail", "email"),
        ("don’t", "don't"), ("don´t", "dont"), ("l’été", "été"), ("Men's", "men"), ("AT&T", "att"),
        ("C++", "c++"), ("F#", "f#"), (".NET", ".net"), ("node.js", "nodejs"), ("U.S.A.", "usa"), ("1,000", "1000"),
        ("4K", "4k"), ("#BlackFriday", "black friday"), ("snake_case", "snake"), ("Lego™", "lego"),
        ("so\u00adft", "soft"), ("naïve", "naive"), ("🍕 Pizza", "🍕"), ("(«Война»)", "война"), ("O'Reilly", "OReilly"),
    ],
)  # fmt: skip
def test_spellings_that_find_each_other(written: str, asked: str) -> None:
    terms = TermWeights.fit([written, "another", "one more"])
    assert len(terms.encode_query(asked)), f"{asked} finds nothing of {terms_of(written)}"


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("कि", "की"),
        ("йод", "иод"),
        ("ไก่", "ไข่"),
        ("C", "C++"),
        ("C#", "C++"),
        ("año", "ana"),
        ("دار", "در"),
        ("3.5", "35"),
    ],
)
def test_what_is_another_word_stays_another(written: str, asked: str) -> None:
    assert not terms_of(asked) <= terms_of(written)


def test_exact_spellings_come_first() -> None:
    terms = TermWeights.fit(["schon gut", "schön gut", "C for all", "C++ for all"])
    for row, asked in ((0, "schon"), (1, "schön"), (3, "C++")):
        codes = terms.encode_query(asked)
        scores = [
            terms.weights[i:j][[code in codes for code in terms.term_codes[i:j]]].sum()
            for i, j in zip(terms.offsets, terms.offsets[1:], strict=False)
        ]
        assert max(range(4), key=scores.__getitem__) == row


def test_neighbours_are_joined_only_if_one_is_unknown() -> None:
    known = {"wifi", "router", "to", "day", "today"}
    assert TextAnalyser().query("wi fi router", known.__contains__) == ["wi", "fi", "router", "wifi"]
    assert TextAnalyser().query("to day", known.__contains__) == ["to", "day"]


def test_a_document_is_as_long_as_its_words() -> None:
    """Other spellings of a word do not make a text longer."""
    found = TextAnalyser().documents(["Müller", "Müller trinkt Café", "東京タワー", "iPhone15", "", "C++"], {})
    assert found.lengths.tolist() == [1, 3, 4, 2, 0, 1]


def test_accents_may_count() -> None:
    strict = TextAnalyser(TextSettings(fold_accents=False))
    assert terms_of("Café", strict) == {"café"}
    assert terms_of("CAFE\u0301", strict) == {"café"}


def test_stems_and_stop_words() -> None:
    english = TextAnalyser(TextSettings("english"))
    assert english.query("the running shoes") == ["running", "run", "shoes", "shoe"]
    assert english.query("The Who") == ["the", "who"], "a query of stop words asks for them"
    assert "the" in terms_of("The Who", english)
    assert TextAnalyser(TextSettings("english", stemming=False)).query("the shoes") == ["shoes"]
    assert TextAnalyser(TextSettings("english", stop_words=False)).query("the") == ["the"]
    russian = TermWeights.fit(["красные машины", "синий дом"], TextSettings("russian"))
    assert russian.n_items[russian.encode_query("машина")].tolist() == [1]


def test_stop_words_are_of_languages_with_a_stemmer() -> None:
    assert set(STOP_WORDS) <= set(stemming_languages())
    for words in STOP_WORDS.values():
        assert len(words) > 20
        assert all(word == word.lower() and len(word.split()) == 1 for word in words)
    assert TextAnalyser(TextSettings("arabic")).query("كتاب على") == ["كتاب"], "they are read as any other word"


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"language": "klingon"}, "language is 'klingon'; expected one of arabic, "),
        ({"field_weights": {"title": -1.0}}, "field_weights.title"),
        ({"length_normalisation": {"title": 1.5}}, "length_normalisation.title"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        TextSettings(**wrong)  # type: ignore[arg-type]
