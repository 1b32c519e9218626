"""Train a ranker from a log: fit item models, build point-in-time query groups, train LambdaRank with early stopping.

Training features never leak the group's label. If groups are logged rankings, they are split into blocks of time, and
the item model behind a block's features is fitted on earlier events only: later clicks would leak labels, and serving
has none. If groups come from recall, users are split into folds, and a fold's item model is fitted without its users'
target interactions (cross-fitting).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, pairwise

import numpy as np
from numpy.typing import NDArray

from feedrank.engine.events.catalogue import Catalogue
from feedrank.engine.events.event_table import Log
from feedrank.engine.retrieval.indexes import ExactIndex
from feedrank.engine.retrieval.retrievers import EmbeddingRetriever
from feedrank.engine.types import Matrix, Scores
from feedrank.features.bm25 import TermWeights
from feedrank.features.builder import FeatureBuilder, FeatureSettings
from feedrank.features.item_model import ItemKnowledge
from feedrank.features.late_interaction import TokenVectors
from feedrank.features.state import StateSpec
from feedrank.models.items.item_model import ItemSettings, fit_items
from feedrank.models.items.user_histories import Sequences
from feedrank.models.retraining import drift
from feedrank.models.training.dataset import from_rankings, from_recall
from feedrank.models.training.labels import LabelSettings
from feedrank.models.training.parquet_dataset import Store
from feedrank.models.training.query_groups import Groups, scored
from feedrank.models.training.ranker import LambdaRanker, LambdaRankSettings
from feedrank.models.training.reranker_training import SecondPhase

Progress = Callable[[str, int, int], None]
"""Called with (task, steps done, steps in total)."""


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """[training] How query groups are built. Defaults were chosen on validation (docs/evaluation.md)."""

    folds: int = 4
    """Number of blocks of time that logged rankings are split into. If groups come from recall: number of user folds,
    one of which is the validation slice."""
    targets: int = 6
    """Groups per user if they come from recall: one for each of the latest interactions."""
    least_history: int = 5
    """Minimum number of earlier interactions of a target interaction."""
    candidates: int = 100
    least_rankings: int = 500
    """Minimum number of rankings with a click in the log to train on rankings instead of recall."""
    memory_mb: int = 2_000
    """Memory limit of the training matrices in MB; beyond it they are Parquet files that LightGBM reads in chunks."""
    served_rows: bool = True
    """Train on the features logged at serving if the feature list is the same; otherwise compute them by replay."""
    seed: int = 7

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise ValueError(f"folds is {self.folds}; expected at least 2")
        if self.memory_mb < 0:
            raise ValueError(f"memory_mb is {self.memory_mb}; expected at least 0")

    def store(self) -> Store:
        """Return a store for the training matrices."""
        return Store(self.memory_mb, self.served_rows)


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of item models, features, labels and the ranker."""

    items: ItemSettings = field(default_factory=ItemSettings)
    state: StateSpec = field(default_factory=StateSpec)
    features: FeatureSettings = field(default_factory=FeatureSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    labels: LabelSettings = field(default_factory=LabelSettings)
    ranker: LambdaRankSettings = field(default_factory=LambdaRankSettings)


@dataclass(frozen=True, eq=False, slots=True)
class Corpus:
    """The catalogue with its text signals: the inputs of item models that are the same for all folds and splits."""

    catalogue: Catalogue
    text: Matrix
    """(n, d) unit vectors of the documents; (n, 0): no embedder."""
    terms: TermWeights
    tokens: TokenVectors | None = None
    """Token vectors for late interaction."""
    pairs: SecondPhase | None = None
    """Cross-encoder for these items; None: ranking has one stage."""
    made_by: Mapping[str, str] = field(default_factory=dict)
    """Signal -> digest of the model that computes it."""


@dataclass(frozen=True, eq=False, slots=True)
class Trained:
    """A trained ranker with the item model of its features."""

    knowledge: ItemKnowledge
    builder: FeatureBuilder
    ranker: LambdaRanker
    counts: dict[str, int]
    """Number of groups per slice, and of groups left out because they have no positive."""
    sample: Matrix
    """Sample of the training rows, for drift monitoring."""
    first: LambdaRanker | None = None
    """First-stage ranker; None without a cross-encoder."""
    pairs: SecondPhase | None = None

    def score(self, groups: Groups) -> Scores:
        """Return (N,) scores as at serving: with a cross-encoder, it scores the first stage's top k first."""
        if self.pairs is not None and self.first is not None:
            groups = self.pairs.live(groups, self.first)
        return scored(groups, self.ranker.score)


def learns_from_rankings(log: Log, settings: Settings) -> bool:
    """Return True if the log has enough rankings with a positive to train on them instead of recall."""
    return (
        int(from_rankings(log, 0, len(log.rankings), settings.labels).found.sum()) >= settings.training.least_rankings
    )


@dataclass(frozen=True, eq=False, slots=True)
class Prepared:
    """Training and validation groups with feature rows, and the feature builder for serving."""

    train: list[Groups]
    validation: Groups
    builder: FeatureBuilder
    ranker: LambdaRankSettings
    """Ranker settings, adapted to the kind of groups."""
    counts: dict[str, int]
    sample: Matrix
    pairs: SecondPhase | None = None

    def fit(self, progress: Progress = lambda *_: None, start: LambdaRanker | None = None) -> Trained:
        """Train the ranker on these groups. init_model: a ranker of the same features, whose trees are extended."""

        def on_round(rounds_done: int, _: float) -> None:
            if rounds_done % 10 == 0:
                progress("LambdaRank", rounds_done, self.ranker.rounds)

        first_stage, data = self.with_pairs(progress)
        names, fingerprint = self.builder.names, self.builder.fingerprint
        ranker = LambdaRanker.train(data.train, data.validation, names, fingerprint, self.ranker, on_round, start)
        return Trained(self.builder.knowledge, self.builder, ranker, self.counts, self.sample, first_stage, self.pairs)

    def with_pairs(self, progress: Progress) -> tuple[LambdaRanker | None, Prepared]:
        """Return the first-stage ranker and the data with cross-encoder scores; (None, self) without one."""
        if self.pairs is None:
            return None, self

        def on_scored(rows_done: int, total: int) -> None:
            progress("rows scored by the cross-encoder", rows_done, total)

        names, fingerprint = self.builder.names, self.builder.fingerprint
        first_stage, train, validation = self.pairs.train(
            self.train, self.validation, names, fingerprint, self.ranker, on_scored
        )  # fmt: skip
        return first_stage, replace(self, train=train, validation=validation, pairs=None)


def train_from_rankings(
    corpus: Corpus,
    log: Log,
    cut: int,
    stop: int,
    settings: Settings | None = None,
    progress: Progress = lambda *_: None,
    start: LambdaRanker | None = None,
) -> Trained:
    """Train on rankings [0, validation_start), stop early on [validation_start, validation_stop), ignore later ones.

    init_model: a ranker of the same features, whose trees are extended.
    """
    settings = settings or Settings()
    with settings.training.store() as store:
        return prepare_from_rankings(corpus, log, cut, stop, settings, store, progress).fit(progress, start)


def train_from_recall(
    corpus: Corpus,
    log: Log,
    usable: NDArray[np.bool_],
    settings: Settings | None = None,
    progress: Progress = lambda *_: None,
    start: LambdaRanker | None = None,
) -> Trained:
    """Train on the retriever's candidates just before each user's latest trainable interactions.

    trainable: (interactions,) mask of what may be learnt from; exclude test interactions, and in a time split all
    after the cut. One fold of users is the validation slice. Groups without the target among the candidates are left
    out.
    """
    settings = settings or Settings()
    with settings.training.store() as store:
        return prepare_from_recall(corpus, log, usable, settings, store, progress).fit(progress, start)


def prepare_from_rankings(
    corpus: Corpus, log: Log, cut: int, stop: int, settings: Settings, store: Store, progress: Progress
) -> Prepared:
    """Build the training data of `train_from_rankings`; use it before the store is closed.

    The item model for validation is fitted on interactions before `validation_start` only, as at serving. Raises
    ValueError if no training ranking has a positive.
    """
    histories = Sequences.of(log)
    past = histories.keep(histories.at < log.rankings.at[cut])
    is_history = log.is_history[past.touch]
    validation = from_rankings(log, cut, stop, settings.labels, cut=True)
    bounds = np.linspace(0, cut, settings.training.folds + 1).astype(int).tolist()
    parts: list[Groups] = []
    left_out = int((~validation.found).sum())
    for block, (first, last) in enumerate(pairwise(bounds)):
        progress("features, block by block", block, settings.training.folds + 1)
        examples = from_rankings(log, first, last, settings.labels, cut=True)
        left_out += int((~examples.found).sum())
        if examples.found.any():
            # before the first block there is only the history from before the log
            block_past = past.keep(past.at < log.rankings.at[first] if first else is_history)
            parts.append(store.groups(log, _builder(corpus, block_past, settings), examples.only(examples.found)))
    progress("features, block by block", settings.training.folds, settings.training.folds + 1)
    builder = _builder(corpus, past, settings)
    held_out = store.groups(log, builder, validation.only(validation.found))
    if not parts:
        raise ValueError(f"found no clicked item in the {cut:,} training rankings; import interactions first")
    if settings.ranker.refit:
        # the refitted ranker learns from the validation slice, so the item model may too, and serves fresher
        end = log.rankings.at[stop] if stop < len(log.rankings) else np.inf
        builder = _builder(corpus, histories.keep(histories.at < end), settings)
    counts = {"training": cut, "validation": len(validation), "without_positive": left_out}
    return Prepared(parts, held_out, builder, settings.ranker, counts, _sample(parts, settings), corpus.pairs)


def prepare_from_recall(
    corpus: Corpus, log: Log, usable: NDArray[np.bool_], settings: Settings, store: Store, progress: Progress
) -> Prepared:
    """Build the training data of `train_from_recall`; use it before the store is closed."""
    options = settings.training
    histories = Sequences.of(log)
    allowed = usable[histories.touch]
    known = histories.keep(allowed)
    from_end = np.zeros(len(histories.items), np.int64)
    from_end[allowed] = known.from_end
    targets = np.flatnonzero(allowed & (from_end < options.targets) & (histories.from_start >= options.least_history))
    folds = np.random.default_rng(options.seed).permutation(len(histories)) % options.folds
    counter = count(1)

    def on_group() -> None:
        done_count = next(counter)
        if done_count % 50 == 0:
            progress("training groups from recall", done_count, len(targets))

    def build_fold(fold: int) -> Groups:
        in_fold = folds[histories.person] == fold
        fold_histories = histories.keep(allowed & ~(in_fold & (from_end < options.targets)))
        builder = _builder(corpus, fold_histories, settings)
        examples = from_recall(
            log, histories, targets[in_fold[targets]], retriever(builder.knowledge), options.candidates,
            settings.state.depth, on_group,
        )  # fmt: skip
        return store.groups(log, builder, examples.only(examples.found))

    parts = [build_fold(fold) for fold in range(options.folds)]
    progress("training groups from recall", len(targets), len(targets))
    validation, *train = parts
    # one positive among all candidates: pairs at every position matter
    parameters = {"lambdarank_truncation_level": options.candidates} | dict(settings.ranker.parameters)
    group_counts = {"training": sum(len(build_fold) for build_fold in train), "validation": len(validation)}
    counts = {**group_counts, "without_positive": len(targets) - sum(group_counts.values())}
    ranker = replace(settings.ranker, parameters=parameters)
    final = _builder(corpus, known, settings)
    return Prepared(train, validation, final, ranker, counts, _sample(train, settings), corpus.pairs)


def fit_corpus(corpus: Corpus, sequences: Sequences, settings: ItemSettings) -> ItemKnowledge:
    """Fit the item model on these interactions and add the token vectors and model digests of the inputs."""
    item_model = fit_items(corpus.catalogue, corpus.text, corpus.terms, sequences, settings)
    return replace(item_model, tokens=corpus.tokens, made_by=corpus.made_by)


def cut_at(log: Log, share: float) -> float:
    """Return the unix seconds before which this share of interactions lies; ValueError if there are none."""
    if not len(log.interactions):
        raise ValueError("found no interactions to split by time; load some with `feedrank import`")
    return float(np.quantile(log.interactions.at, share))


def retriever(knowledge: ItemKnowledge) -> EmbeddingRetriever:
    """Build an exact retriever over the embedding space: the reference, fast enough for building groups."""
    return EmbeddingRetriever(knowledge.catalogue, knowledge.space, ExactIndex(knowledge.space.targets, "dot"))


def _builder(corpus: Corpus, sequences: Sequences, settings: Settings) -> FeatureBuilder:
    return FeatureBuilder(fit_corpus(corpus, sequences, settings.items), settings.state, settings.features)


def _sample(parts: Sequence[Groups], settings: Settings) -> Matrix:
    return drift.sample([part.matrix for part in parts], settings.training.seed)
