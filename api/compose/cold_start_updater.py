"""Adds new and changed items to a serving bundle: each update builds the next serving snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from feedrank.api.compose.serving import pipeline, ranker_of
from feedrank.api.compose.text_signals import TextModels, documents_of, parts_of
from feedrank.api.config import Config
from feedrank.engine.events.catalogue import Catalogue, told_on
from feedrank.engine.events.events import FieldValue, ItemEvent
from feedrank.engine.retrieval.pca_index import whole_index
from feedrank.engine.serving.reranking import Rescoring
from feedrank.engine.serving.serving_snapshot import Live
from feedrank.features.builder import FeatureBuilder
from feedrank.features.catalogue_growth import grown
from feedrank.features.state import BehaviouralState
from feedrank.models.bundles.bundle import Bundle
from feedrank.models.items.cold_start import Newcomers, changed, merged
from feedrank.models.text.cross_encoder_model import PairModel
from feedrank.models.text.score_cache import PairScores

Items = dict[str, dict[str, FieldValue]]


class NewItems:
    """Extends the item model of a bundle with cold-start items; existing items keep their rows."""

    def __init__(self, config: Config, opened: Bundle, texts: TextModels) -> None:
        self._config = config
        self._opened = self._first = opened
        self._texts = texts
        self._newcomers = Newcomers(opened.knowledge)

    def prepare(self) -> None:
        """Warm up with an invisible item: load models and compute what the first new item would wait for."""
        fields: Items = {"": {"title": "warm up"}}
        documents = Catalogue.from_items(fields).documents(parts_of(self._opened))
        text, tokens = self._texts.items(documents)
        self._newcomers.extend(self._opened.knowledge, fields, text, documents, tokens)

    def take(self, events: Iterable[ItemEvent], offset: int, renew: Callable[[Callable[[Live], Live]], None]) -> int:
        """Add the items of these events, in journal order; returns how many are new or changed.

        offset: journal offset of the last event. renew: swaps the serving snapshot by the function it is given.
        Unchanged items are skipped. All slow work is done before the swap.
        """
        new_or_changed = _differing(self._opened.knowledge.catalogue, events)
        if not new_or_changed:
            return 0
        knowledge, parts = self._opened.knowledge, parts_of(self._opened)
        current = merged(knowledge.catalogue, {item: {} for item in new_or_changed})
        before, after = (
            dict(zip(new_or_changed, Catalogue.from_items(items).documents(parts), strict=True))
            for items in (current, merged(knowledge.catalogue, new_or_changed))
        )
        same_text = {
            item: fields for item, fields in new_or_changed.items()
            if item in knowledge.catalogue.ids and before[item] == after[item]
        }  # fmt: skip
        if same_text:
            knowledge = changed(knowledge, same_text)
        if new_text := {item: fields for item, fields in new_or_changed.items() if item not in same_text}:
            documents = [after[item] for item in new_text]
            text, tokens = self._texts.items(documents)
            knowledge = self._newcomers.extend(knowledge, new_text, text, documents, tokens)
        initial = self._first.builder
        builder = FeatureBuilder(knowledge, initial.spec, initial.settings, initial.category_shares)
        index = whole_index(knowledge.space.targets, self._opened.index.metric, self._opened.whole)
        opened = replace(self._opened, builder=builder, whole=index)
        renew(lambda old: replace(self._generation(old, opened), items_offset=offset))
        self._opened = opened
        return len(new_or_changed)

    def _generation(self, old: Live, opened: Bundle) -> Live:
        """Build the next snapshot with these items; the behavioural state is carried over."""
        assert isinstance(old.state, BehaviouralState)
        catalogue = opened.knowledge.catalogue
        state = grown(old.state, old.catalogue, catalogue)
        reranker = None if old.pipeline.rescoring is None else self._extended(old.pipeline.rescoring, opened)
        extended = pipeline(opened, self._config, state, ranker_of(opened), reranker)
        return replace(old, catalogue=catalogue, state=state, pipeline=extended, vectors=opened.knowledge.space.targets)

    def _extended(self, second: Rescoring, opened: Bundle) -> Rescoring:
        """Extend the reranker to new items. A changed text of an existing item is used from the next bundle on."""
        model, cache, titles = second.scorer, second.cache, opened.knowledge.catalogue.titles
        assert isinstance(model, PairModel)
        assert isinstance(cache, PairScores)
        if new_documents := documents_of(opened)[len(model.items) :]:
            tokens = model.tokens(new_documents, self._config.cross_encoder.item_tokens)
            model, cache = model.with_items(model.items.followed_by(tokens)), cache.followed_by(new_documents)
        return replace(second, scorer=model, cache=cache, titles=titles)


def _differing(catalogue: Catalogue, events: Iterable[ItemEvent]) -> Items:
    """Return item -> fields of the items that events add or change; later fields replace earlier ones."""
    updates: Items = {}
    for event in events:
        updates[event.item] = told_on(updates.get(event.item, {}), event.fields)
    new_or_changed: Items = {}
    for item, fields in updates.items():
        if item not in catalogue.ids or _plain(catalogue, item, fields) != _plain(catalogue, item, {}):
            new_or_changed[item] = fields
    return new_or_changed


def _plain(catalogue: Catalogue, item: str, fields: dict[str, FieldValue]) -> dict[str, FieldValue]:
    """Return all fields of an item in a normal form; a single category becomes a list."""
    return Catalogue.from_items(merged(catalogue, {item: fields})).to_items()[item]
