"""Adds new and changed items to a serving bundle: each update builds the next serving snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from feedrank.api.compose.serving import build_pipeline
from feedrank.api.compose.text_signals import TextEncoders, document_fields, item_documents
from feedrank.api.compose.vector_index import with_custom_index
from feedrank.api.config import Config
from feedrank.engine.events.catalogue import Catalogue, merge_fields
from feedrank.engine.events.checks import FieldValue
from feedrank.engine.events.events import ItemEvent
from feedrank.engine.retrieval.pca_index import build_scannable_index
from feedrank.engine.serving.reranking import CrossEncoderReranker
from feedrank.engine.serving.serving_snapshot import ServingSnapshot
from feedrank.features import history_growth
from feedrank.features.builder import FeatureBuilder
from feedrank.features.state import BehaviouralState
from feedrank.models.bundles.bundle import Bundle
from feedrank.models.items.cold_start import ColdStartExtender, merge_item_fields, update_fields
from feedrank.models.text.cross_encoder_model import CrossEncoderModel
from feedrank.models.text.score_cache import SqliteScoreCache

FieldsByItem = dict[str, dict[str, FieldValue]]


class ColdStartUpdater:
    """Extends the item model of a bundle with cold-start items; existing items keep their rows."""

    def __init__(self, config: Config, opened: Bundle, encoders: TextEncoders) -> None:
        self._config = config
        self._opened = self._initial = with_custom_index(opened, config.index)
        self._encoders = encoders
        self._extender = ColdStartExtender(opened.item_model, opened.content_maps)

    def warm_up(self) -> None:
        """Warm up with an invisible item: load models and compute what the first new item would wait for."""
        fields: FieldsByItem = {"": {"title": "warm up"}}
        documents = Catalogue.from_items(fields).documents(document_fields(self._opened))
        text, tokens = self._encoders.encode_items(documents)
        self._extender.extend(self._opened.item_model, fields, text, documents, tokens)
        history_growth.warm_up()

    def apply(
        self,
        events: Iterable[ItemEvent],
        new_items: Sequence[str],
        offset: int,
        reranker: CrossEncoderReranker | None,
        swap: Callable[[Callable[[ServingSnapshot], ServingSnapshot]], None],
    ) -> int:
        """Add the items of these events, in journal order; returns how many are new or changed.

        new_items: those that the state knows and the catalogue lacks, in the order of the state's rows. offset: journal
        offset of the last event. reranker: that of the serving snapshot. swap: swaps this snapshot by the function it
        is given, under a lock. Unchanged items are skipped, and those that the state does not know. All slow work is
        done before the swap. Raises RuntimeError if the events lack a new item before the others.
        """
        new_or_changed = _changed_items(self._opened.item_model.catalogue, events, new_items)
        if not new_or_changed:
            return 0
        knowledge, parts = self._opened.item_model, document_fields(self._opened)
        current = merge_item_fields(knowledge.catalogue, {item: {} for item in new_or_changed})
        before, after = (
            _texts(items, parts) for items in (current, merge_item_fields(knowledge.catalogue, new_or_changed))
        )
        same_text = {
            item: fields for item, fields in new_or_changed.items()
            if item in knowledge.catalogue.ids and before[item] == after[item]
        }  # fmt: skip
        if same_text:
            knowledge = update_fields(knowledge, same_text)
        if new_text := {item: fields for item, fields in new_or_changed.items() if item not in same_text}:
            documents = [after[item][0] for item in new_text]
            text, tokens = self._encoders.encode_items(documents)
            knowledge = self._extender.extend(knowledge, new_text, text, documents, tokens)
        initial = self._initial.builder
        builder = FeatureBuilder(knowledge, initial.spec, initial.settings, initial.category_shares)
        index = build_scannable_index(knowledge.space.item_side, self._opened.index.metric, self._opened.exact_index)
        opened = replace(self._opened, builder=builder, exact_index=index)
        first, catalogue = len(self._opened.item_model.catalogue), opened.item_model.catalogue
        added = [catalogue.ids.name(row) for row in range(first, len(catalogue))]
        extended_reranker = None if reranker is None else self._extend_reranker(reranker, opened)

        def extended(old: ServingSnapshot) -> ServingSnapshot:
            """Return the next snapshot with these items. The behavioural state has them already, and stays."""
            assert isinstance(old.state, BehaviouralState)
            if old.state.items.rows(added).tolist() != list(range(first, len(catalogue))):
                raise RuntimeError(f"found {len(added)} new items in other rows than the state has; trying again later")
            return replace(
                old,
                catalogue=catalogue,
                pipeline=build_pipeline(opened, self._config, old.state, extended_reranker),
                item_vectors=opened.item_model.space.item_side,
                items_offset=offset,
            )

        swap(extended)
        self._opened = opened
        return len(new_or_changed)

    def _extend_reranker(self, reranker: CrossEncoderReranker, opened: Bundle) -> CrossEncoderReranker:
        """Extend the reranker to new items. A changed text of an existing item is used from the next bundle on."""
        model, cache, titles = reranker.scorer, reranker.cache, opened.item_model.catalogue.titles
        assert isinstance(model, CrossEncoderModel)
        assert isinstance(cache, SqliteScoreCache)
        if new_documents := item_documents(opened)[len(model.items) :]:
            tokens = model.tokenize(new_documents, self._config.cross_encoder.item_tokens)
            model, cache = model.with_items(model.items.concat(tokens)), cache.with_more_items(new_documents)
        return replace(reranker, scorer=model, cache=cache, titles=titles)


def _texts(items: FieldsByItem, parts: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Return item -> its document and the texts of its parts; BM25 reads words of another part in another way."""
    catalogue = Catalogue.from_items(items)
    columns = [catalogue.documents(parts), *catalogue.field_texts(parts).values()]
    return dict(zip(items, zip(*columns, strict=True), strict=True))


def _changed_items(catalogue: Catalogue, events: Iterable[ItemEvent], new_items: Sequence[str]) -> FieldsByItem:
    """Return item -> fields of the items that events change, then of those of `new_items` that they add, in order.

    Later fields replace earlier ones.
    """
    updates: FieldsByItem = {}
    for event in events:
        updates[event.item] = merge_fields(updates.get(event.item, {}), event.fields)
    changed: FieldsByItem = {}
    for item, fields in updates.items():
        if item in catalogue.ids and _normalized_fields(catalogue, item, fields) != _normalized_fields(
            catalogue, item, {}
        ):
            changed[item] = fields
    return changed | {item: updates[item] for item in new_items if item in updates}


def _normalized_fields(catalogue: Catalogue, item: str, fields: dict[str, FieldValue]) -> dict[str, FieldValue]:
    """Return all fields of an item in a normal form; a single category becomes a list."""
    return Catalogue.from_items(merge_item_fields(catalogue, {item: fields})).to_items()[item]
