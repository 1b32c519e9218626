"""Languages: items of 19 languages are found by their words, with BM25 alone, and words of live items at once."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rank_bm25 import BM25Okapi

from benchmarks.bars import DATA, Bar, console

START = 1_700_000_000_000
NOW = START / 1000 + 1_000
CONFIG = '[embedder]\nmodel = "none"\n'
TITLES = {
    "zh": "机器学习入门教程 深度学习实战 家常菜做法大全 北京旅游指南 儿童英语故事 红楼梦 摄影技巧一百例 中国历史 糖",
    "zt": "機器學習導論 臺灣美食地圖 繁體中文書法 香港電影回顧 古典音樂欣賞 登山安全手冊",
    "ja": "東京タワーの夜景 京都の寺院めぐり 猫と暮らす コンピューターの歴史 日本料理の基本 夏目漱石全集 "
    "ハリー・ポッターと賢者の石 山登り入門",
    "ko": "서울에서_맛집을_찾다 부산_여행_안내 한국어_문법 책을_읽는_사람들 김치_만드는_법 "
    "바다의_노래 컴퓨터_프로그래밍",
    "th": "อาหารไทยง่ายๆ ท่องเที่ยวเชียงใหม่ ประวัติศาสตร์ไทย แมวและสุนัข ปูผัดผงกะหรี่ เรียนภาษาอังกฤษ ดนตรีไทยเดิม",
    "hi": "हिन्दी_की_किताब हाथी_की_कहानी भारत_का_इतिहास ताज़ा_खाना संगीत_और_नृत्य बच्चों_के_गीत",
    "ta": "தமிழ்_இலக்கியம் தென்னிந்திய_சமையல் கடல்_பயணம் பறவைகள்_உலகம் இசை_கருவிகள்",
    "bn": "বাংলা_ব্যাকরণ রবীন্দ্রনাথের_গান নদীর_গল্প মাছের_রান্না",
    "ar": "الكِتابُ_الجديد سيارة_حمراء تاريخ_الأندلس الطبخ_المغربي مدرسة_الموسيقى كرة_القدم",
    "fa": "می‌روم_به_خانه کتاب‌های_کودکان آشپزی_ایرانی تاریخ_ایران",
    "he": "שָׁלוֹם_עוֹלָם הספר_הגדול מוזיקה_קלאסית ירושלים_העתיקה אוכל_ביתי",
    "ru": "Ёлка_и_мороз Война_и_мир Русская_кухня Йога_для_начинающих История_искусства",
    "el": "Αθήνα_και_θάλασσα Ο_Οδυσσεύς Ελληνική_κουζίνα Μουσική_της_Κρήτης",
    "vi": "Ẩm_thực_đường_phố Tiếng_Việt_cơ_bản Lịch_sử_Hà_Nội Bài_hát_thiếu_nhi",
    "tr": "İstanbul_gezi_rehberi Diyarbakır_mutfağı Türk_kahvesi IĞDIR_dağları",
    "de": "Straßenbahn_fahren Müllers_Mühle Das_große_Käsebuch Über_den_Wolken Schöne_Gärten",
    "fr": "Cafe\u0301_cre\u0300me_a\u0300_Paris Voiture_rouge L’été_en_Provence Œuvres_complètes Le_cœur_des_forêts",
    "es": "El_niño_y_el_año Corazón_de_España Cocina_fácil Música_andina",
    "en": "Learning_to_cook Tokyo_tower_at_night A_history_of_art Gardening_for_beginners Red_car C_for_beginners "
    "C++_for_beginners C#_for_beginners iPhone15_case Samsung_phone_case Wi-Fi_router LAN_cable AT&T_prepaid_card "
    "H&M_gift_card E-mail_marketing Don’t_look_up 4K_television ＦＵＬＬ_ＷＩＤＴＨ_keyboard "
    "#BlackFriday_deals Node.js_in_action Men's_shoes",
}
"""Language -> titles, with _ for a space. Each language is the distractor of its own items."""
QUERIES = {
    "机器学习": "机器学习入门教程", "家常菜": "家常菜做法大全", "糖": "糖", "英语": "儿童英语故事",
    "臺灣 美食": "臺灣美食地圖", "書法": "繁體中文書法",
    "寺院": "京都の寺院めぐり", "猫": "猫と暮らす", "ｺﾝﾋﾟｭｰﾀｰ": "コンピューターの歴史",
    "ハリーポッター": "ハリー・ポッターと賢者の石",
    "맛집": "서울에서_맛집을_찾다", "책": "책을_읽는_사람들", "부산": "부산_여행_안내",
    "อาหาร": "อาหารไทยง่ายๆ", "ปู": "ปูผัดผงกะหรี่", "เชียงใหม่": "ท่องเที่ยวเชียงใหม่",
    "हिंदी": "हिन्दी_की_किताब", "हाथी": "हाथी_की_कहानी", "ताजा खाना": "ताज़ा_खाना",
    "கடல்": "கடல்_பயணம்", "ব্যাকরণ": "বাংলা_ব্যাকরণ",
    "كتاب": "الكِتابُ_الجديد", "مدرسه": "مدرسة_الموسيقى", "میروم": "می‌روم_به_خانه",
    "שלום": "שָׁלוֹם_עוֹלָם", "ספר": "הספר_הגדול", "елка": "Ёлка_и_мороз", "αθηνα": "Αθήνα_και_θάλασσα",
    "duong pho": "Ẩm_thực_đường_phố", "ISTANBUL": "İstanbul_gezi_rehberi", "ığdır": "IĞDIR_dağları",
    "STRASSENBAHN": "Straßenbahn_fahren", "Mueller Mühle": "Müllers_Mühle",
    "Café": "Cafe\u0301_cre\u0300me_a\u0300_Paris",
    "coeur": "Le_cœur_des_forêts", "C++": "C++_for_beginners", "iphone 15": "iPhone15_case", "wifi": "Wi-Fi_router",
    "AT&T": "AT&T_prepaid_card", "full width": "ＦＵＬＬ_ＷＩＤＴＨ_keyboard",
}  # fmt: skip
"""Query -> the title that is asked for."""
TOP = 3
COMMON_WORDS = {2: 4, 3: 4, 4: 4, 5: 8}
"""Number of items that have a word -> number of items."""
LIVE = {"zeppelin": "Zeppelin rides", "飞艇": "飞艇的故事", "ऊँट": "ऊँट की सवारी", "воздухоплавание": "Воздухоплавание"}
"""Query -> the title of an item that arrives while the service runs."""
REPETITIONS = 5


def bars() -> list[Bar]:
    """Measure the four parts."""
    assert len(QUERIES) == 40
    with tempfile.TemporaryDirectory() as folder:
        ranks = _ranks(Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        live = _live(Path(folder))
    right = [_finds_all(n, of) for n, of in COMMON_WORDS.items()]
    languages = f"{len(QUERIES)} queries, {sum(len(titles.split()) for titles in TITLES.values())} items"
    found = [
        Bar(
            f"{languages} of {len(TITLES)} languages: among the first {TOP}",
            sum(r <= TOP for r in ranks),
            "",
            38,
            "higher",
        ),
        Bar(f"{languages} of {len(TITLES)} languages: first", sum(r == 1 for r in ranks), "", 36, "higher"),
    ]
    return [
        *found,
        Bar("words of 2 of 4, 3 of 4, 4 of 4 and 5 of 8 items: all of them first", sum(right), "of 4", 4, "higher"),
        Bar("words of live items and live titles: found at once, old ones no more", live, "of 12", 12, "higher"),
        Bar("fit of BM25 on the MIND articles, against one regex and rank-bm25", _speed(), "x", 0.9, "higher"),
    ]  # fmt: skip


def _ranks(folder: Path) -> list[int]:
    """The rank of the item that each query asks for; 1,000 if it is not in the list."""
    from feedrank import Home

    titles = [title for line in TITLES.values() for title in line.split()]
    _make_home(folder, {title: title.replace("_", " ") for title in titles})
    ranks = []
    with Home(folder, progress=False).recommender(log=False) as recommender:
        for query, wanted in QUERIES.items():
            feed = recommender.recommend(query=query, n=100)
            ids = [item.id for item in feed.items]
            ranks.append(ids.index(wanted) + 1 if wanted in ids and feed.source == "bm25" else 1_000)
            if ranks[-1] > 1:
                console.print(f"{query!r}: {wanted!r} has the rank {ranks[-1]} after {ids[:TOP]}")
    return ranks


def _finds_all(n: int, of: int) -> bool:
    """Whether a word that n of these items have finds these items, before all others."""
    from feedrank import Home

    items = {str(row): f"windy day {row}" if row < n else f"quiet night {row}" for row in range(of)}
    with tempfile.TemporaryDirectory() as folder:
        _make_home(Path(folder), items)
        with Home(folder, progress=False).recommender(log=False) as recommender:
            found = [item.id for item in recommender.recommend(query="windy", n=of).items]
    return set(found[:n]) == {str(row) for row in range(n)}


def _live(folder: Path) -> int:
    """How many of 3 checks for each live word are right: new item, changed title, the word of the old title."""
    from feedrank.api import compose
    from feedrank.api.admin import create_admin_services
    from feedrank.api.compose.refresh import Refresher
    from feedrank.api.compose.text_signals import TextEncoders
    from feedrank.api.config import load_config
    from feedrank.api.home_paths import HomePaths
    from feedrank.api.http.app import create_app
    from feedrank.api.http.service import Service
    from feedrank.models.bundles import bundle

    _make_home(folder, {"a": "plain things", "b": "other things"})
    paths = HomePaths(folder)
    settings, opened, journal = load_config(paths.config), bundle.load(paths.current_bundle), paths.journal()
    recommender = compose.build_recommender(paths, settings)
    refresher = Refresher(paths, settings, journal, recommender, opened, TextEncoders(paths, opened), clock=lambda: NOW)
    behind = create_admin_services(paths, settings, journal, refresher.check_items)
    client = create_app(Service(recommender, lambda: NOW, admin=behind)).test_client()

    def send(item: str, title: str) -> None:
        event = {"event": "item", "item": item, "fields": [{"name": "title", "value": title}]}
        assert client.post("/v1/events", json=event).status_code == 202
        refresher.check_items()

    def found(query: str) -> list[str]:
        answer: Any = client.post("/v1/recommend", json={"query": query}).json
        return [item["id"] for item in answer["items"]] if answer["source"] == "bm25" else []

    right = 0
    for query, title in LIVE.items():
        send("new", title)
        right += found(query) == ["new"]
        send("a", title)
        right += set(found(query)) == {"a", "new"}
        send("a", "plain things")
        right += found(query) == ["new"]
    return right


def _make_home(folder: Path, titles: Mapping[str, str]) -> None:
    """Import items with these titles and a few clicks, and make a bundle, by the command line."""
    events: list[dict[str, Any]] = [
        {"event": "item", "id": f"i{n}", "item": item, "timestamp": START,
         "fields": [{"name": "title", "value": title}, {"name": "category", "value": f"x{n % 3}"}]}
        for n, (item, title) in enumerate(titles.items())
    ]  # fmt: skip
    events += [
        {
            "event": "interaction",
            "id": f"c{n}",
            "timestamp": START + n,
            "item": item,
            "user": f"u{n % 5}",
            "type": "click",
        }
        for n, item in enumerate([*titles, *titles])
    ]
    (folder / "feedrank.toml").write_text(CONFIG)
    (folder / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    for command in (["import", str(folder / "log.jsonl")], ["index"]):
        subprocess.run(
            [sys.executable, "-m", "feedrank.api.cli", "--home", str(folder), *command], check=True, capture_output=True
        )


def _speed() -> float:
    """Seconds of the plain way, over those of `TermWeights.fit`; the best of several runs each, in turn."""
    from feedrank.features.bm25 import TermWeights

    with gzip.open(DATA / "mind_sample" / "news.tsv.gz", "rt", encoding="utf-8") as lines:
        rows = [line.rstrip("\n").split("\t") for line in lines]
    fields = {name: [row[column] for row in rows] for name, column in (("title", 3), ("text", 4), ("category", 1))}
    documents = [". ".join(filter(None, row)) for row in zip(*fields.values(), strict=True)]
    plain, ours = [], []
    for _ in range(REPETITIONS):
        started = time.process_time()
        _plain_fit(documents)
        between = time.process_time()
        TermWeights.fit(fields)
        plain.append(between - started)
        ours.append(time.process_time() - between)
    console.print(f"{len(documents)} articles: {min(ours):.2f} s, the plain way {min(plain):.2f} s")
    return min(plain) / min(ours)


def _plain_fit(documents: list[str]) -> NDArray[np.float32]:
    """Fit as version 0.2 did: lower-case runs of word characters, and rank-bm25 on one field; return the weights."""
    from feedrank.engine.events.vocabulary import Vocabulary

    model = BM25Okapi([re.findall(r"\w+", document.lower()) for document in documents])
    terms = Vocabulary(model.idf)
    codes: list[int] = []
    counts: list[int] = []
    sizes: list[int] = []
    for frequencies in model.doc_freqs:
        codes += [terms.row(term) for term in frequencies]
        counts += frequencies.values()
        sizes.append(len(frequencies))
    frequency, idf = np.array(counts, np.float64), np.array([model.idf[term] for term in terms])[codes]
    relative = np.repeat(np.array(model.doc_len, np.float64), sizes) / model.avgdl
    return np.asarray(idf * frequency * 2.5 / (frequency + 1.5 * (0.25 + 0.75 * relative)), np.float32)
