"""Items that came or changed after the bundle that serves was made: another generation that knows them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from api.compose.serving import pipeline, ranker_of
from api.compose.signals import TextModels, documents_of, parts_of
from api.config import Config
from engine.catalogue import Catalogue, told_on
from engine.events import FieldValue, ItemEvent
from engine.live import Live
from engine.rescoring import Rescoring
from engine.scan import whole_index
from features.builder import FeatureBuilder
from features.growth import grown
from features.state import BehaviouralState
from models.bundle import Bundle
from models.newcomers import Newcomers, changed, merged
from models.text.pair_model import PairModel
from models.text.score_cache import PairScores

Items = dict[str, dict[str, FieldValue]]


class NewItems:
    """Extends what a bundle knows, again and again; old items keep their rows."""

    def __init__(self, config: Config, opened: Bundle, texts: TextModels) -> None:
        self._config = config
        self._opened = self._first = opened
        self._texts = texts
        self._newcomers = Newcomers(opened.knowledge)

    def prepare(self) -> None:
        """Do all that the first newcomer would wait for, with one that nobody sees."""
        fields: Items = {"": {"title": "warm up"}}
        documents = Catalogue.from_items(fields).documents(parts_of(self._opened))
        text, tokens = self._texts.items(documents)
        self._newcomers.extend(self._opened.knowledge, fields, text, documents, tokens)

    def take(self, events: Iterable[ItemEvent], offset: int, renew: Callable[[Callable[[Live], Live]], None]) -> int:
        """Make the items of these events, in the order of the journal, known; how many.

        offset: of the last of them. renew: takes what makes the next generation of the last one.
        Items of which nothing changes are passed over. What is slow is done before anybody has to wait.
        """
        wanted = _differing(self._opened.knowledge.catalogue, events)
        if not wanted:
            return 0
        knowledge, parts = self._opened.knowledge, parts_of(self._opened)
        known = merged(knowledge.catalogue, {item: {} for item in wanted})
        before, after = (
            dict(zip(wanted, Catalogue.from_items(one).documents(parts), strict=True))
            for one in (known, merged(knowledge.catalogue, wanted))
        )
        same = {
            item: fields for item, fields in wanted.items()
            if item in knowledge.catalogue.ids and before[item] == after[item]
        }  # fmt: skip
        if same:
            knowledge = changed(knowledge, same)
        if others := {item: fields for item, fields in wanted.items() if item not in same}:
            documents = [after[item] for item in others]
            text, tokens = self._texts.items(documents)
            knowledge = self._newcomers.extend(knowledge, others, text, documents, tokens)
        first = self._first.builder
        builder = FeatureBuilder(knowledge, first.spec, first.settings, first.category_shares)
        whole = whole_index(knowledge.space.targets, self._opened.index.metric, self._opened.whole)
        opened = replace(self._opened, builder=builder, whole=whole)
        renew(lambda old: replace(self._generation(old, opened), items_offset=offset))
        self._opened = opened
        return len(wanted)

    def _generation(self, old: Live, opened: Bundle) -> Live:
        """What serves now, with these items: the state is carried over."""
        assert isinstance(old.state, BehaviouralState)
        catalogue = opened.knowledge.catalogue
        state = grown(old.state, old.catalogue, catalogue)
        second = None if old.pipeline.rescoring is None else self._extended(old.pipeline.rescoring, opened)
        made = pipeline(opened, self._config, state, ranker_of(opened), second)
        return replace(old, catalogue=catalogue, state=state, pipeline=made, vectors=opened.knowledge.space.targets)

    def _extended(self, second: Rescoring, opened: Bundle) -> Rescoring:
        """The second phase for more items; of an item whose text changed it reads the old one until the next bundle."""
        model, cache, titles = second.scorer, second.cache, opened.knowledge.catalogue.titles
        assert isinstance(model, PairModel)
        assert isinstance(cache, PairScores)
        if more := documents_of(opened)[len(model.items) :]:
            tokens = model.tokens(more, self._config.cross_encoder.item_tokens)
            model, cache = model.with_items(model.items.followed_by(tokens)), cache.followed_by(more)
        return replace(second, scorer=model, cache=cache, titles=titles)


def _differing(catalogue: Catalogue, events: Iterable[ItemEvent]) -> Items:
    """Item -> fields, of events that say something new; a later event's field takes the place of an earlier one's."""
    said: Items = {}
    for event in events:
        said[event.item] = told_on(said.get(event.item, {}), event.fields)
    wanted: Items = {}
    for item, fields in said.items():
        if item not in catalogue.ids or _plain(catalogue, item, fields) != _plain(catalogue, item, {}):
            wanted[item] = fields
    return wanted


def _plain(catalogue: Catalogue, item: str, fields: dict[str, FieldValue]) -> dict[str, FieldValue]:
    """All fields of an item in one form, whether a category came alone or in a list."""
    return Catalogue.from_items(merged(catalogue, {item: fields})).to_items()[item]
