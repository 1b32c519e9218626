"""Train a ranker from a log: fit item models, build point-in-time query groups, train LambdaRank with early stopping.

Training features never leak the group's label. If groups are logged rankings, they are split into blocks of time, and
the item model behind a block's features is fitted on earlier events only: later clicks would leak labels, and serving
has none. If groups come from recall, users are split into folds, and a fold's item model is fitted without its users'
target interactions (cross-fitting).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, pairwise

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.event_table import EventTable
from feedrank.engine.retrieval.indexes import ExactIndex
from feedrank.engine.retrieval.retrievers import EmbeddingRetriever
from feedrank.engine.types import Matrix, Scores
from feedrank.features.builder import FeatureBuilder
from feedrank.features.item_model import ItemModel
from feedrank.models.items.user_histories import UserHistories
from feedrank.models.retraining import drift
from feedrank.models.training.dataset import from_rankings, from_recall
from feedrank.models.training.declared_report import DeclaredReport, declared_report
from feedrank.models.training.folds import check_group_counts, short_histories_error, user_folds
from feedrank.models.training.group_limit import GroupLimit
from feedrank.models.training.item_inputs import ItemInputs, fit_item_model
from feedrank.models.training.label_contrast import check_contrast, label_notes, missing_contrast
from feedrank.models.training.label_gain import with_label_gain
from feedrank.models.training.labels import impression_labels
from feedrank.models.training.leak_check import SuspectFeature, suspect_features
from feedrank.models.training.parquet_dataset import MatrixStore
from feedrank.models.training.query_groups import QueryGroups, score_in_chunks
from feedrank.models.training.ranker import LambdaRanker, LambdaRankSettings
from feedrank.models.training.ranker_warnings import ranker_warnings, recall_warnings
from feedrank.models.training.reranker_training import RerankerTraining
from feedrank.models.training.training_settings import ModelSettings

Progress = Callable[[str, int, int], None]
"""Called with (task, steps done, steps in total)."""


@dataclass(frozen=True, eq=False, slots=True)
class TrainedRanker:
    """A trained ranker with the item model of its features."""

    item_model: ItemModel
    builder: FeatureBuilder
    ranker: LambdaRanker
    counts: dict[str, int]
    """Number of groups per slice, and of groups left out because they have no positive."""
    drift_sample: Matrix
    """Sample of the training rows, for drift monitoring."""
    first_stage: LambdaRanker | None = None
    """First-stage ranker; None without a cross-encoder."""
    reranker: RerankerTraining | None = None
    notes: tuple[str, ...] = ()
    """What was done with the labels of the log, and what was left out, one sentence each."""
    suspects: tuple[SuspectFeature, ...] = ()
    """Features that alone rank the training groups too well to be true."""
    warnings: tuple[str, ...] = ()
    """What is wrong with the ranker, the suspects and declared features included, one sentence each."""
    declared: DeclaredReport = field(default_factory=DeclaredReport)

    def score(self, groups: QueryGroups) -> Scores:
        """Return (N,) scores as at serving: with a cross-encoder, it scores the first stage's top k first."""
        if self.reranker is not None and self.first_stage is not None:
            groups = self.reranker.score_top_k(groups, self.first_stage)
        return score_in_chunks(groups, self.ranker.score)


def has_enough_rankings(log: EventTable, settings: ModelSettings) -> bool:
    """Return True if the log has enough rankings with a positive to train on them instead of recall.

    Without any interaction, as in a feature file, there is nothing else to train on, and two of them are enough.
    Raises ValueError if their labels have no contrast, and if there is nothing else to train on.
    """
    rankings = log.rankings
    minimum = settings.training.min_rankings if len(log.interactions) else 2
    enough = int(from_rankings(log, 0, len(rankings), settings.labels).has_positive.sum()) >= minimum
    has_logged_labels = len(rankings) >= minimum and not bool(np.isnan(rankings.labels).all())
    if enough or has_logged_labels or not len(log.interactions):
        check_contrast(log, settings.labels)
    return enough


@dataclass(frozen=True, eq=False, slots=True)
class TrainingData:
    """Training and validation groups with feature rows, and the feature builder for serving."""

    train: list[QueryGroups]
    validation: QueryGroups
    builder: FeatureBuilder
    ranker: LambdaRankSettings
    """Ranker settings, adapted to the kind of groups."""
    counts: dict[str, int]
    drift_sample: Matrix
    reranker: RerankerTraining | None = None
    notes: tuple[str, ...] = ()
    """What was done with the labels of the log, and what was left out, one sentence each."""
    declared: DeclaredReport = field(default_factory=DeclaredReport)
    max_feature_auc: float = 1.0
    """As in `TrainingSettings` for groups that were shown; 1, for those from recall: no feature is suspected."""

    def fit(self, progress: Progress = lambda *_: None, init_model: LambdaRanker | None = None) -> TrainedRanker:
        """Train the ranker on these groups. init_model: a ranker of the same features, whose trees are extended."""
        first_stage, data = self.with_cross_encoder_scores(progress)
        ranker = data.fit_ranker(progress, init_model, recall_gain=True)
        suspects = suspect_features(data.train, self.builder.names, self.max_feature_auc)
        found = ranker_warnings(ranker, data.train, data.validation, self.ranker) + recall_warnings(ranker.recall_gain)
        return TrainedRanker(
            self.builder.item_model, self.builder, ranker, self.counts, self.drift_sample, first_stage, self.reranker,
            (*self.notes, *self.declared.notes), suspects,
            (*self.declared.warnings, *(suspect.sentence() for suspect in suspects), *found), self.declared,
        )  # fmt: skip

    def fit_ranker(
        self, progress: Progress = lambda *_: None, init_model: LambdaRanker | None = None, recall_gain: bool = False
    ) -> LambdaRanker:
        """Train the ranker of `fit` without its checks, on groups that have their cross-encoder scores."""

        def on_round(rounds_done: int, _: float) -> None:
            if rounds_done % 10 == 0:
                progress("LambdaRank", rounds_done, self.ranker.rounds)

        names, fingerprint = self.builder.names, self.builder.fingerprint
        return LambdaRanker.train(
            self.train, self.validation, names, fingerprint, self.ranker, on_round, init_model, recall_gain
        )

    def without(self, columns: Collection[int]) -> TrainingData:
        """Return the data whose ranker never splits on these columns; the rows stay as they are."""
        seen = [0.0 if column in columns else 1.0 for column in range(len(self.builder.names))]
        parameters = dict(self.ranker.parameters) | {"feature_contri": seen}
        return replace(self, ranker=replace(self.ranker, parameters=parameters))

    def with_cross_encoder_scores(self, progress: Progress) -> tuple[LambdaRanker | None, TrainingData]:
        """Return the first-stage ranker and the data with cross-encoder scores; (None, self) without one."""
        if self.reranker is None:
            return None, self

        def on_scored(rows_done: int, total: int) -> None:
            progress("rows scored by the cross-encoder", rows_done, total)

        names, fingerprint = self.builder.names, self.builder.fingerprint
        first_stage, train, validation = self.reranker.train(
            self.train, self.validation, names, fingerprint, self.ranker, on_scored
        )  # fmt: skip
        return first_stage, replace(self, train=train, validation=validation, reranker=None)


def train_from_rankings(
    item_inputs: ItemInputs,
    log: EventTable,
    validation_start: int,
    validation_stop: int,
    settings: ModelSettings | None = None,
    progress: Progress = lambda *_: None,
    init_model: LambdaRanker | None = None,
) -> TrainedRanker:
    """Train on rankings [0, validation_start), stop early on [validation_start, validation_stop), ignore later ones.

    init_model: a ranker of the same features, whose trees are extended.
    """
    settings = settings or ModelSettings()
    with settings.training.matrix_store() as store:
        return prepare_from_rankings(
            item_inputs, log, validation_start, validation_stop, settings, store, progress
        ).fit(progress, init_model)


def train_from_recall(
    item_inputs: ItemInputs,
    log: EventTable,
    trainable: NDArray[np.bool_],
    settings: ModelSettings | None = None,
    progress: Progress = lambda *_: None,
    init_model: LambdaRanker | None = None,
) -> TrainedRanker:
    """Train on the retriever's candidates just before each user's latest trainable interactions.

    trainable: (interactions,) mask of what may be learnt from; exclude test interactions, and in a time split all
    after the cut. One fold of users is the validation slice. Groups without the target among the candidates are left
    out.
    """
    settings = settings or ModelSettings()
    with settings.training.matrix_store() as store:
        return prepare_from_recall(item_inputs, log, trainable, settings, store, progress).fit(progress, init_model)


def prepare_from_rankings(
    item_inputs: ItemInputs,
    log: EventTable,
    validation_start: int,
    validation_stop: int,
    settings: ModelSettings,
    store: MatrixStore,
    progress: Progress,
) -> TrainingData:
    """Build the training data of `train_from_rankings`; use it before the store is closed.

    The item model for validation is fitted on interactions that stand before ranking `validation_start`, as at serving,
    and that of each block on those before the block; a ranking's own interactions never do. Raises
    ValueError if no training ranking has a positive.
    """
    histories = UserHistories.from_log(log)
    past = histories.before(log.interactions_before(validation_start))
    is_history = log.is_history[past.interaction]
    ids = item_inputs.catalogue.ids
    validation = from_rankings(log, validation_start, validation_stop, settings.labels, drop_unexamined=True)
    validation = validation.in_id_order(ids)
    bounds = np.linspace(0, validation_start, settings.training.folds + 1).astype(int).tolist()
    parts: list[QueryGroups] = []
    limit = GroupLimit(settings.training.seed)
    left_out = int((~validation.has_positive).sum())
    for block, (first, last) in enumerate(pairwise(bounds)):
        progress("features, block by block", block, settings.training.folds + 1)
        examples = from_rankings(log, first, last, settings.labels, drop_unexamined=True).in_id_order(ids)
        left_out += int((~examples.has_positive).sum())
        if examples.has_positive.any():
            # before the first block there is only the history from before the log
            block_past = past.before(log.interactions_before(first)) if first else past.select(is_history)
            builder = _feature_builder(item_inputs, block_past, settings)
            parts.append(store.build_query_groups(log, builder, limit.cut(examples.select(examples.has_positive))))
    progress("features, block by block", settings.training.folds, settings.training.folds + 1)
    builder = _feature_builder(item_inputs, past, settings)
    held_out = store.build_query_groups(log, builder, limit.cut(validation.select(validation.has_positive)))
    if not parts:
        raise ValueError(
            f"found no clicked item in the {validation_start:,} training rankings; import interactions first"
        )
    if settings.ranker.refit:
        # the refitted ranker learns from the validation slice, so the item model may too, and serves fresher
        known = histories.before(log.interactions_before(validation_stop))
        builder = _feature_builder(item_inputs, known, settings)
    counts = {"training": validation_start, "validation": len(validation), "without_positive": left_out}
    ranker = with_label_gain(settings.ranker, settings.labels, [*parts, held_out])
    sample = _drift_sample(parts, settings)
    return TrainingData(
        parts, held_out, builder, ranker, counts, sample, item_inputs.reranker,
        (*label_notes(log, settings.labels), *limit.notes), declared_report(builder, sample, log),
        settings.training.max_feature_auc,
    )  # fmt: skip


def prepare_from_recall(
    item_inputs: ItemInputs, log: EventTable, trainable: NDArray[np.bool_], settings: ModelSettings,
    store: MatrixStore, progress: Progress,
) -> TrainingData:  # fmt: skip
    """Build the training data of `train_from_recall`; use it before the store is closed."""
    options = settings.training
    everything = UserHistories.from_log(log)
    histories, entering = everything.in_history, trainable[everything.interaction]
    allowed = trainable[histories.interaction]
    latest = histories.select(allowed).last_targets(options.targets_per_user, options.min_history)
    targets = np.flatnonzero(allowed)[latest]
    if not len(targets):
        raise short_histories_error(histories.user[allowed], options.min_history)
    folds = user_folds(histories.user[targets], len(histories), options.folds, options.seed)
    counter, limit = count(1), GroupLimit(options.seed)

    def on_group() -> None:
        done_count = next(counter)
        if done_count % 50 == 0:
            progress("training groups from recall", done_count, len(targets))

    def build_fold(fold: int) -> QueryGroups:
        in_fold = folds[histories.user] == fold
        first = histories.first_of(targets[in_fold[targets]])
        is_before = entering & (everything.interaction < first[everything.user])
        builder = _feature_builder(item_inputs, everything.select(is_before), settings)
        examples = from_recall(
            log, histories, targets[in_fold[targets]], exact_retriever(builder.item_model), options.candidates,
            settings.state.history_length, on_group,
        )  # fmt: skip
        return store.build_query_groups(log, builder, limit.cut(examples.select(examples.has_positive)))

    parts = [build_fold(fold) for fold in range(options.folds)]
    progress("training groups from recall", len(targets), len(targets))
    validation, *train = parts
    # one positive among all candidates: pairs at every position matter
    parameters = {"lambdarank_truncation_level": options.candidates} | dict(settings.ranker.parameters)
    group_counts = {"training": sum(len(build_fold) for build_fold in train), "validation": len(validation)}
    counts = {**group_counts, "without_positive": len(targets) - sum(group_counts.values())}
    check_group_counts(counts, options.candidates)
    ranker = replace(settings.ranker, parameters=parameters)
    final = _feature_builder(item_inputs, everything.select(entering), settings)
    problem = missing_contrast(log, impression_labels(log, settings.labels))
    said = (f"the rankings are not used: {problem}",) if problem else ()
    sample = _drift_sample(train, settings)
    return TrainingData(
        train, validation, final, ranker, counts, sample, item_inputs.reranker,
        (*said, *limit.notes), declared_report(final, sample, log),
    )  # fmt: skip


def exact_retriever(item_model: ItemModel) -> EmbeddingRetriever:
    """Build an exact retriever over the embedding space: the reference, fast enough for building groups."""
    return EmbeddingRetriever(item_model.catalogue, item_model.space, ExactIndex(item_model.space.item_side, "dot"))


def _feature_builder(item_inputs: ItemInputs, histories: UserHistories, settings: ModelSettings) -> FeatureBuilder:
    return FeatureBuilder(fit_item_model(item_inputs, histories, settings.items), settings.state, settings.features)


def _drift_sample(parts: Sequence[QueryGroups], settings: ModelSettings) -> Matrix:
    return drift.sample_rows([part.matrix for part in parts], settings.training.seed)
