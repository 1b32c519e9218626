"""Sessions: a visitor without a name has a history, and it joins the user's when an event names both."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import feedrank
from hypothesis import given, settings
from hypothesis import strategies as st
from test_search import Shop

from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.event_table_builder import events_to_table
from feedrank.engine.events.events import Event, InteractionEvent, RankingEvent
from feedrank.engine.events.vocabulary import Vocabulary, joined_session, visitor_name
from feedrank.engine.types import ResolvedRequest
from feedrank.features.replay import PointInTimeQueries
from feedrank.features.state import BehaviouralState

START = 1_700_000_000
ITEMS = [f"i{n}" for n in range(6)]
CATALOGUE = Catalogue.from_items({item: {} for item in ITEMS})
Visit = tuple[str, str | None, str | None, list[str]]
"""Kind (ranking, click or hide), user, session, items."""


def events_of(visits: list[Visit]) -> list[Event]:
    events: list[Event] = []
    for n, (kind, user, session, items) in enumerate(visits):
        at = (START + n) * 1_000
        if kind == "ranking":
            events.append(RankingEvent(f"e{n}", at, tuple(items), user, session))
        else:
            events.append(InteractionEvent(f"e{n}", at, items[0], kind, None, user, session))
    return events


visits = st.lists(
    st.tuples(
        st.sampled_from(["ranking", "click", "click", "hide"]),
        st.sampled_from(["ann", "bob", None]),
        st.sampled_from(["s", "t", None]),
        st.lists(st.sampled_from(ITEMS), min_size=1, max_size=4, unique=True),
    ),
    min_size=1, max_size=14,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(visits, st.sampled_from(["ann", "bob", None]), st.sampled_from(["s", "t", None]))
def test_a_live_request_reads_what_a_replay_reads(listed: list[Visit], user: str | None, session: str | None) -> None:
    events, state, users = events_of(listed), BehaviouralState(CATALOGUE), Vocabulary()
    for event in events:
        state.advance(events_to_table([event], CATALOGUE.ids, users, True))
    rows = np.arange(len(ITEMS), dtype=np.int32)
    row, joined = users.row(visitor_name(user, session)), joined_session(users, user, session)
    parts = [state.history(one) for one in (joined, row)]
    history, times = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    at = float(START + len(listed))
    live = state.read([ResolvedRequest(at, row, history.astype(np.int32), times, session=joined)], [rows])
    asked = RankingEvent("asked", round(at * 1_000), tuple(ITEMS), user, session)
    again = Vocabulary()
    log = events_to_table([*events, asked], CATALOGUE.ids, again, True)
    last = len(log.rankings) - 1
    queries = PointInTimeQueries(
        np.array([len(events)]), np.array([at]), log.rankings.user[last:], np.array([0, len(rows)]), rows,
        session=log.rankings.session[last:],
    )  # fmt: skip
    replayed = BehaviouralState(CATALOGUE).replay_log(log, queries)
    for name in ("history", "history_at", "interaction_count", "impressions", "counters", "disliked", "dislikes"):
        np.testing.assert_array_equal(getattr(live, name), getattr(replayed, name), err_msg=name)
    # when the ranking is logged, the session's history is the user's
    state.advance(events_to_table([asked], CATALOGUE.ids, users, True))
    assert state.history(users.row(visitor_name(user, session)))[0].tolist() == history.tolist()
    if joined >= 0:
        assert not len(state.history(joined)[0])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two groups of items, each liked by its own users; all events name users."""
    folder, dice = tmp_path_factory.mktemp("sessions"), random.Random(3)
    log: list[dict[str, Any]] = [
        {"event": "item", "id": f"{group}{n}", "item": f"{group}{n}", "timestamp": 0, "fields": []}
        for group in "ab" for n in range(20)
    ]  # fmt: skip
    for user in range(60):
        group = "ab"[user % 2]
        for n, item in enumerate(dice.sample(range(20), 8)):
            log.append({
                "event": "interaction", "id": f"{user}-{n}", "timestamp": (START - 10_000 + user * 100 + n) * 1_000,
                "item": f"{group}{item}", "user": f"u{user}", "type": "click",
            })  # fmt: skip
    (folder / "log.jsonl").write_text("\n".join(map(json.dumps, log)))
    (folder / "feedrank.toml").write_text('[embedder]\nmodel = "none"\n')
    feedrank(folder, "import", folder / "log.jsonl")
    feedrank(folder, "index")
    return folder


def test_three_clicks_of_a_session_lead_its_feed(home: Path) -> None:
    shop = Shop.open(home)
    for n, group in enumerate("abba"):
        session = f"visit {n}"
        clicked = [f"{group}{n * 3 + step}" for step in range(3)]
        for item in clicked:
            shop.post("/v1/events", {"event": "interaction", "item": item, "type": "click", "session": session}, 202)
        feed = shop.post("/v1/recommend", {"session": session, "n": 10})
        items = [one["id"] for one in feed["items"]]
        assert items[0][0] == group
        assert not {*items} & {*clicked}
        assert shop.post(f"/v1/rankings/{feed['ranking']}/replay", {})["identical"]
        # logged in now, the user goes on where the session stopped
        named = shop.post("/v1/recommend", {"session": session, "user": f"new {n}", "n": 10})
        assert next(one["id"] for one in named["items"])[0] == group
        assert not {one["id"] for one in named["items"]} & {*clicked}
        assert shop.post(f"/v1/rankings/{named['ranking']}/replay", {})["identical"]
        alone = shop.post("/v1/recommend", {"user": f"new {n}", "n": 10})
        assert not {one["id"] for one in alone["items"]} & {*clicked}
        assert shop.post("/v1/recommend", {"session": session, "n": 10})["items"], "the session begins anew"


def test_erasing_a_user_erases_what_the_session_does_later(home: Path) -> None:
    shop = Shop.open(home)
    shop.post("/v1/events", {"event": "interaction", "item": "a1", "type": "click", "session": "x", "user": "zoe"}, 202)
    shop.post("/v1/events", {"event": "interaction", "item": "a2", "type": "click", "session": "x"}, 202)
    items = {one["id"] for one in shop.post("/v1/recommend", {"session": "x", "n": 40, "log": False})["items"]}
    assert "a2" not in items
    shop.client.delete("/v1/state/user/zoe")
    items = {one["id"] for one in shop.post("/v1/recommend", {"session": "x", "n": 40, "log": False})["items"]}
    assert "a2" in items
