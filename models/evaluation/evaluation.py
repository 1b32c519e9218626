"""Offline evaluation compares the ranker with recall order, text similarity, popularity and random on held-out data.

There are three protocols. `last-item`: leave out each user's last positive interaction and what followed it, and find
its item among all that the user has not interacted with. `temporal`: one cut in time for all users, find the first
interaction after it. `rankings`: the logged rankings, split by time 70/10/20.

Equal scores are in descending order of item ids, as in trec_eval. Relevant items that the catalogue lacks count as
missed. Groups without any relevant item have no ideal order; they are left out and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.event_table import EventTable
from feedrank.engine.events.interaction_types import POSITIVE
from feedrank.engine.protocols import Retriever
from feedrank.engine.retrieval.embedding_space import build_embedding_space
from feedrank.engine.retrieval.indexes import ExactIndex
from feedrank.engine.retrieval.retrievers import EmbeddingRetriever, PopularRetriever, eligibility_mask
from feedrank.engine.types import Candidates, Offsets, ResolvedRequest, Rows, Scores
from feedrank.features.builder import FeatureBuilder
from feedrank.models.evaluation.bootstrap import Difference, difference, interval
from feedrank.models.evaluation.metrics import Ideal, order
from feedrank.models.evaluation.report import Row
from feedrank.models.evaluation.trec import Qrels, Run
from feedrank.models.items.user_histories import UserHistories
from feedrank.models.training.dataset import (
    LabeledGroups,
    build_query_groups,
    from_rankings,
    from_recall,
    point_in_time_batch,
)
from feedrank.models.training.folds import TooLittleDataError
from feedrank.models.training.item_inputs import ItemInputs
from feedrank.models.training.label_contrast import check_contrast
from feedrank.models.training.labels import LabelSettings
from feedrank.models.training.training import (
    Progress,
    TrainedRanker,
    exact_retriever,
    has_enough_rankings,
    train_from_rankings,
    train_from_recall,
)
from feedrank.models.training.training_settings import ModelSettings

RETRIEVAL_METRICS = ("ndcg@10", "hr@10", "recall@100", "mrr", "map")
RANKING_METRICS = ("auc", "ndcg@10", "ndcg@5", "mrr", "map")
METRICS = {"last-item": RETRIEVAL_METRICS, "temporal": RETRIEVAL_METRICS, "rankings": RANKING_METRICS}
"""Protocol -> its metrics."""
TRAIN_SHARE, VALIDATION_SHARE = 0.7, 0.1
"""Shares of the rankings by time; the rest is the test slice."""
TIME_SPLIT_SHARE = 0.9
"""Share of the interactions before the time split."""


@dataclass(frozen=True, eq=False, slots=True)
class MethodRanking:
    """The ranking of one method for each test group, best first."""

    item_rows: Rows
    scores: Scores
    offsets: Offsets


@dataclass(frozen=True, eq=False, slots=True)
class Comparison:
    """The methods' rankings on one test set and their metrics."""

    protocol: str
    methods: Mapping[str, MethodRanking]
    qrels: Qrels
    rows: tuple[Row, ...]
    gain: Difference
    """Paired difference in nDCG@10, ranker minus recall order."""
    trained: TrainedRanker
    labels: LabelSettings
    """What the labels of the test set are measured with; they are binary, whatever [labels] says, without rankings."""
    notes: tuple[str, ...] = ()
    """What was left out of the test set or counts as missed, one sentence each."""

    @property
    def highest_label(self) -> int:
        """Return the highest label of the test set; 1: the labels are binary."""
        return int(self.qrels.labels.max(initial=0))


def leave_last_out(
    item_inputs: ItemInputs,
    log: EventTable,
    dataset: str,
    settings: ModelSettings | None = None,
    progress: Progress = lambda *_: None,
) -> Comparison:
    """Train on what each user did before the last positive interaction, and find that interaction.

    Later interactions of other users are part of the training data.
    """
    settings = settings or ModelSettings()
    histories = UserHistories.from_log(log, with_unknown_items=True).in_history
    targets = histories.last_targets()
    trained = train_from_recall(item_inputs, log, before_targets(log, histories, targets), settings, progress)
    return _compare_recall("last-item", dataset, item_inputs, log, histories, targets, trained, settings)


def before_targets(log: EventTable, histories: UserHistories, targets: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return (interactions,) False for these targets and for what their users did later, of any type."""
    return np.arange(len(log.interactions)) < histories.first_of(targets)[log.interactions.user]


def time_split(
    item_inputs: ItemInputs,
    log: EventTable,
    dataset: str,
    settings: ModelSettings | None = None,
    progress: Progress = lambda *_: None,
) -> Comparison:
    """Train on the interactions before one cut in time and find each known user's first interaction after it.

    Raises TooLittleDataError if no user has interactions on both sides of the cut.
    """
    settings = settings or ModelSettings()
    histories = UserHistories.from_log(log, with_unknown_items=True).in_history
    end = log.first_interaction_from(log.time_quantile(TIME_SPLIT_SHARE))
    targets = histories.first_targets_after(end)
    if not len(targets):
        raise TooLittleDataError("found no user with interactions before and after the cut; import a longer log")
    trainable = np.arange(len(log.interactions)) < end
    trained = train_from_recall(item_inputs, log, trainable, settings, progress)
    return _compare_recall("temporal", dataset, item_inputs, log, histories, targets, trained, settings)


def logged_rankings(
    item_inputs: ItemInputs,
    log: EventTable,
    dataset: str,
    settings: ModelSettings | None = None,
    progress: Progress = lambda *_: None,
) -> Comparison:
    """Train on the first 70 % of the rankings, stop early on the next 10 %, rank the last 20 %.

    Raises ValueError if there are too few rankings to split, or if their labels have no contrast.
    """
    settings = settings or ModelSettings()
    check_contrast(log, settings.labels)
    total = len(log.rankings)
    validation_start, test_start = round(total * TRAIN_SHARE), round(total * (TRAIN_SHARE + VALIDATION_SHARE))
    if not 0 < validation_start < test_start < total:
        raise ValueError(f"found {total} rankings, too few for a time split; import a longer log")
    trained = train_from_rankings(item_inputs, log, validation_start, test_start, settings, progress)
    test = from_rankings(log, test_start, total, settings.labels).in_id_order(item_inputs.catalogue.ids)
    has_relevant = test.has_relevant
    if not has_relevant.any():
        raise ValueError(
            f"found no relevant item in the {len(test):,} newest of {total:,} rankings, which are the test; import a"
            " longer log"
        )
    test = test.select(has_relevant)
    batch = point_in_time_batch(log, item_inputs.catalogue, settings.state, test)
    columns = FeatureBuilder(trained.item_model, settings.state).columns(batch)  # of all families
    scores = {
        "lambdarank": trained.score(build_query_groups(log, trained.builder, test)),
        "recall": columns["recall_score"],
        "text": columns["text_decay1"],
        "popularity": columns["popularity_all"],
        "click-through": columns["ctr_24h"],
        "random": np.random.default_rng(settings.training.seed).random(len(batch.rows)).astype(np.float32),
    }
    methods: dict[str, MethodRanking] = {}
    for name, column in scores.items():
        ranking = order(column, batch.offsets)
        methods[name] = MethodRanking(batch.rows[ranking], column[ranking].astype(np.float32), batch.offsets)
    qrels = _qrels(test.ideal, log.shown_ids(test.ideal_index, item_inputs.catalogue.ids))
    left_out = int((~has_relevant).sum())
    notes = [f"{left_out:,} of {len(has_relevant):,} test rankings have no relevant item and are left out"]
    compared = _compare("rankings", dataset, item_inputs, methods, test, qrels, trained, settings)
    return replace(compared, notes=tuple(notes * (left_out > 0)))


PROTOCOLS: dict[str, Callable[..., Comparison]] = {
    "last-item": leave_last_out,
    "temporal": time_split,
    "rankings": logged_rankings,
}


def protocols_for(log: EventTable, settings: ModelSettings) -> tuple[str, ...]:
    """Return the protocols that fit a log: `rankings` if it has enough of them, otherwise those based on recall.

    `temporal` fits if some user has interactions on both sides of the cut.
    """
    if has_enough_rankings(log, settings):
        return ("rankings",)
    if not (log.meaning_columns().meaning == POSITIVE).any():
        return ("last-item",)
    end = log.first_interaction_from(log.time_quantile(TIME_SPLIT_SHARE))
    histories = UserHistories.from_log(log, with_unknown_items=True).in_history
    has_later_target = len(histories.first_targets_after(end)) > 0
    return ("last-item", "temporal") if has_later_target else ("last-item",)


def trec_runs(item_inputs: ItemInputs, comparison: Comparison) -> dict[str, Run]:
    """Return each method's rankings as a TREC run."""
    runs_by_method: dict[str, Run] = {}
    for name, ranked in comparison.methods.items():
        documents = item_inputs.catalogue.ids.names(ranked.item_rows)
        runs_by_method[name] = Run(comparison.qrels.queries, documents, ranked.scores, ranked.offsets)
    return runs_by_method


def _compare_recall(
    protocol: str,
    dataset: str,
    item_inputs: ItemInputs,
    log: EventTable,
    histories: UserHistories,
    targets: NDArray[np.int64],
    trained: TrainedRanker,
    settings: ModelSettings,
) -> Comparison:
    def candidates_of(source: Retriever) -> LabeledGroups:
        return from_recall(log, histories, targets, source, settings.training.candidates, settings.state.history_length)

    candidates = candidates_of(exact_retriever(trained.item_model))
    in_id_order = candidates.in_id_order(item_inputs.catalogue.ids)
    query_groups = build_query_groups(log, trained.builder, in_id_order)
    scores = trained.score(query_groups)
    ranking = order(scores, query_groups.offsets)
    ranked_rows = in_id_order.queries.rows[ranking]
    methods = {"lambdarank": MethodRanking(ranked_rows, scores[ranking], query_groups.offsets)}
    for name, source in _baselines(item_inputs, trained, settings).items():
        retrieved = candidates if name == "recall" else candidates_of(source)
        rows, offsets = retrieved.queries.rows, retrieved.queries.offsets
        ranks = np.arange(len(rows)) - np.repeat(offsets[:-1], np.diff(offsets))
        methods[name] = MethodRanking(rows, -ranks.astype(np.float32), offsets)
    ids = item_inputs.catalogue.ids
    qrels = _qrels(candidates.ideal, log.interacted_ids(candidates.ideal_index, ids))
    missed = int((log.interactions.item[candidates.ideal_index] < 0).sum())
    notes = [f"the items of {missed:,} of {len(targets):,} targets are not in the catalogue; they count as missed"]
    compared = _compare(protocol, dataset, item_inputs, methods, candidates, qrels, trained, settings)
    return replace(compared, notes=tuple(notes * (missed > 0)))


def _baselines(item_inputs: ItemInputs, trained: TrainedRanker, settings: ModelSettings) -> dict[str, Retriever]:
    item_model = trained.item_model
    counts = np.nan_to_num(item_model.item_stats["interaction_count"])
    space = build_embedding_space(
        {"text": (item_inputs.text, item_inputs.text)}, {"text": 1.0}, 1.0, settings.items.history_length
    )
    return {
        "recall": exact_retriever(item_model),
        "text": EmbeddingRetriever(item_inputs.catalogue, space, ExactIndex(space.item_side, "dot")),
        "popularity": PopularRetriever(item_inputs.catalogue, lambda _: counts),
        "random": _RandomRetriever(item_inputs, settings.training.seed),
    }


class _RandomRetriever:
    """Retrieves random items among those that pass the filters."""

    def __init__(self, item_inputs: ItemInputs, seed: int) -> None:
        self._catalogue = item_inputs.catalogue
        self._random = np.random.default_rng(seed)

    def retrieve(self, request: ResolvedRequest, k: int) -> Candidates:
        mask = eligibility_mask(self._catalogue, request)
        rows = np.arange(len(self._catalogue)) if mask is None else np.flatnonzero(mask)
        chosen = self._random.permutation(rows)[:k].astype(np.int32)
        return Candidates(chosen, np.zeros(len(chosen), np.float32), "random")


def _qrels(ideal: Ideal, documents: Sequence[str]) -> Qrels:
    """Return the relevant items of each group with their labels; documents: their ids."""
    names = [str(query) for query in range(len(ideal.offsets) - 1)]
    return Qrels(names, documents, ideal.labels.astype(np.int64), ideal.offsets)


def _compare(
    protocol: str, dataset: str, item_inputs: ItemInputs, methods: Mapping[str, MethodRanking], test: LabeledGroups,
    qrels: Qrels, trained: TrainedRanker, settings: ModelSettings,
) -> Comparison:  # fmt: skip
    relevant_rows, seed = item_inputs.catalogue.ids.rows(qrels.documents), settings.training.seed
    rows: list[Row] = []
    values: dict[str, NDArray[np.float64]] = {}
    for name, ranked in methods.items():
        labels = _labels_of(ranked, relevant_rows, qrels, len(item_inputs.catalogue))
        metric_values = test.evaluate(METRICS[protocol], labels, ranked.offsets, settings.labels, ranked.scores)
        values[name] = metric_values["ndcg@10"]
        rows += [
            Row.from_interval(dataset, name, metric, interval(column, seed=seed))
            for metric, column in metric_values.items()
        ]
    gain = difference(values["lambdarank"], values["recall"], seed=seed)
    labels_used = test.label_settings(settings.labels)
    return Comparison(protocol, dict(methods), qrels, tuple(rows), gain, trained, labels_used)


def _labels_of(ranked: MethodRanking, relevant_rows: Rows, qrels: Qrels, items: int) -> NDArray[np.int64]:
    """Return (N,) the label of each ranked item; relevant_rows: (M,) the rows of the qrels, -1 if unknown."""
    width = items + 1
    keys = np.repeat(np.arange(len(qrels.queries)), np.diff(qrels.offsets)) * width + relevant_rows
    known = np.flatnonzero(relevant_rows >= 0)
    known = known[np.argsort(keys[known])]
    wanted = np.repeat(np.arange(len(qrels.queries)), np.diff(ranked.offsets)) * width + ranked.item_rows
    if not len(known):
        return np.zeros(len(wanted), np.int64)
    nearest = known[np.minimum(np.searchsorted(keys[known], wanted), len(known) - 1)]
    return np.where(keys[nearest] == wanted, qrels.labels[nearest], 0).astype(np.int64)
