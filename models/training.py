"""From a log to a ranker: item knowledge, groups with the state as of their moment, LambdaRank with early stopping.

What makes a training feature never saw the group's label. Where groups are rankings, they are dealt into blocks of
time, and the item knowledge behind a block's features is fitted on what was logged before it: knowledge of later clicks
would tell which items will be clicked, and serving has none. Where groups come from recall, people are dealt into
folds, and a fold's knowledge is fitted without the touches that its people are asked about (cross-fitting).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, pairwise

import numpy as np
from numpy.typing import NDArray

from engine.catalogue import Catalogue
from engine.indexes import ExactIndex
from engine.log import Log
from engine.recall import EmbeddingRetriever
from engine.types import Matrix, Scores
from features.bm25 import TermWeights
from features.builder import FeatureBuilder, FeatureSettings
from features.items import ItemKnowledge
from features.late import TokenVectors
from features.state import StateSpec
from models import drift
from models.dataset import from_rankings, from_recall
from models.groups import Groups, scored
from models.items import ItemSettings, fit_items
from models.labels import LabelSettings
from models.ranker import LambdaRanker, LambdaRankSettings
from models.second_phase import SecondPhase
from models.sequences import Sequences
from models.shards import Store

Progress = Callable[[str, int, int], None]
"""Called with (what is done, steps done, steps in all)."""


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How groups are made. The defaults were chosen on validation (docs/evaluation.md)."""

    folds: int = 4
    """Rankings are dealt into this many blocks of time. Where groups come from recall, people are, and one fold of
    them is the validation slice."""
    targets: int = 6
    """Groups a person, where they come from recall: one for each of their latest touches."""
    least_history: int = 5
    """Touches that a person must have before one is asked about."""
    candidates: int = 100
    least_rankings: int = 500
    """Rankings with a click that a log must have for them to be the training groups."""
    memory_mb: int = 2_000
    """Training matrices larger than this are written to disk, and LightGBM reads them from there."""
    served_rows: bool = True
    """Rankings that were served with these features are learnt from as they were served, not as they would be now."""
    seed: int = 7

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise ValueError(f"folds is {self.folds}; expected at least 2")
        if self.memory_mb < 0:
            raise ValueError(f"memory_mb is {self.memory_mb}; expected at least 0")

    def store(self) -> Store:
        """Where the training matrices are put."""
        return Store(self.memory_mb, self.served_rows)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that training is told."""

    items: ItemSettings = field(default_factory=ItemSettings)
    state: StateSpec = field(default_factory=StateSpec)
    features: FeatureSettings = field(default_factory=FeatureSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    labels: LabelSettings = field(default_factory=LabelSettings)
    ranker: LambdaRankSettings = field(default_factory=LambdaRankSettings)


@dataclass(frozen=True, eq=False, slots=True)
class Corpus:
    """A catalogue with its texts made ready: what stays the same over folds and splits."""

    catalogue: Catalogue
    text: Matrix
    """(n, d) unit vectors of the documents; (n, 0): no neural part."""
    terms: TermWeights
    tokens: TokenVectors | None = None
    """Token vectors for late interaction."""
    pairs: SecondPhase | None = None
    """A cross-encoder that knows these items; None: the ranker has one phase."""
    made_by: Mapping[str, str] = field(default_factory=dict)
    """Signal -> digest of the model behind it."""


@dataclass(frozen=True, eq=False, slots=True)
class Trained:
    """A ranker, and the item knowledge that its features are made of."""

    knowledge: ItemKnowledge
    builder: FeatureBuilder
    ranker: LambdaRanker
    counts: dict[str, int]
    """How many groups each slice had, and how many were left out for want of a positive."""
    sample: Matrix
    """Some of the training rows: what drift is measured with."""
    first: LambdaRanker | None = None
    """The cheap ranker of the first phase, where there are two."""
    pairs: SecondPhase | None = None

    def score(self, groups: Groups) -> Scores:
        """(N,) scores of groups as a live request has them: pairs of the first phase's best are scored first."""
        if self.pairs is not None and self.first is not None:
            groups = self.pairs.live(groups, self.first)
        return scored(groups, self.ranker.score)


def learns_from_rankings(log: Log, settings: Settings) -> bool:
    """Whether the log's own rankings, rather than what recall finds, are to be the training groups."""
    return (
        int(from_rankings(log, 0, len(log.rankings), settings.labels).found.sum()) >= settings.training.least_rankings
    )


@dataclass(frozen=True, eq=False, slots=True)
class Prepared:
    """Training and validation groups with their feature rows, and the builder that is to serve what they teach."""

    train: list[Groups]
    validation: Groups
    builder: FeatureBuilder
    ranker: LambdaRankSettings
    """As asked for, but for what the kind of groups decides."""
    counts: dict[str, int]
    sample: Matrix
    pairs: SecondPhase | None = None

    def fit(self, progress: Progress = lambda *_: None, start: LambdaRanker | None = None) -> Trained:
        """The ranker that these groups make. start: a ranker of the same features, to whose trees more are added."""

        def told(done: int, _: float) -> None:
            if done % 10 == 0:
                progress("LambdaRank", done, self.ranker.rounds)

        first, made = self.with_pairs(progress)
        names, fingerprint = self.builder.names, self.builder.fingerprint
        ranker = LambdaRanker.train(made.train, made.validation, names, fingerprint, self.ranker, told, start)
        return Trained(self.builder.knowledge, self.builder, ranker, self.counts, self.sample, first, self.pairs)

    def with_pairs(self, progress: Progress) -> tuple[LambdaRanker | None, Prepared]:
        """The first phase's ranker, and the groups with the pair scores the second learns from; None and these groups
        where there is one phase."""
        if self.pairs is None:
            return None, self

        def told(done: int, total: int) -> None:
            progress("pairs scored by the cross-encoder", done, total)

        names, fingerprint = self.builder.names, self.builder.fingerprint
        first, train, held_out = self.pairs.train(
            self.train, self.validation, names, fingerprint, self.ranker, told
        )  # fmt: skip
        return first, replace(self, train=train, validation=held_out, pairs=None)


def train_from_rankings(
    corpus: Corpus,
    log: Log,
    cut: int,
    stop: int,
    settings: Settings | None = None,
    progress: Progress = lambda *_: None,
    start: LambdaRanker | None = None,
) -> Trained:
    """Train on rankings [0, cut), choose the rounds on [cut, stop); nothing after them is learnt from.

    start: a ranker of the same features, to whose trees more are added.
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
    """Train on what recall finds for each person just before each of their latest usable touches.

    usable: (interactions,) what may be learnt from; the test touches, and in a split by time all that came after the
    cut, must not be. One fold of people is the validation slice. Groups whose touched item recall did not find are left
    out.
    """
    settings = settings or Settings()
    with settings.training.store() as store:
        return prepare_from_recall(corpus, log, usable, settings, store, progress).fit(progress, start)


def prepare_from_rankings(
    corpus: Corpus, log: Log, cut: int, stop: int, settings: Settings, store: Store, progress: Progress
) -> Prepared:
    """The groups of `train_from_rankings`, which must be used before the store is closed.

    The item knowledge is not fitted on touches after the cut, so that validation looks as serving will.
    """
    sequences = Sequences.of(log)
    known = sequences.keep(sequences.at < log.rankings.at[cut])
    prior = log.is_history[known.touch]
    validation = from_rankings(log, cut, stop, settings.labels, cut=True)
    bounds = np.linspace(0, cut, settings.training.folds + 1).astype(int).tolist()
    parts: list[Groups] = []
    left_out = int((~validation.found).sum())
    for block, (first, last) in enumerate(pairwise(bounds)):
        progress("features, block by block", block, settings.training.folds + 1)
        examples = from_rankings(log, first, last, settings.labels, cut=True)
        left_out += int((~examples.found).sum())
        if examples.found.any():
            # nothing was logged before the first block: what people touched before the log must do
            kept = known.keep(known.at < log.rankings.at[first] if first else prior)
            parts.append(store.groups(log, _builder(corpus, kept, settings), examples.only(examples.found)))
    progress("features, block by block", settings.training.folds, settings.training.folds + 1)
    builder = _builder(corpus, known, settings)
    held_out = store.groups(log, builder, validation.only(validation.found))
    if not parts:
        raise ValueError(f"none of the {cut:,} training rankings has a clicked item; there is nothing to learn from")
    if settings.ranker.refit:
        # the ranker will have learnt from the validation slice, so the knowledge may: what serves is then as fresh
        end = log.rankings.at[stop] if stop < len(log.rankings) else np.inf
        builder = _builder(corpus, sequences.keep(sequences.at < end), settings)
    counts = {"training": cut, "validation": len(validation), "without_positive": left_out}
    return Prepared(parts, held_out, builder, settings.ranker, counts, _sample(parts, settings), corpus.pairs)


def prepare_from_recall(
    corpus: Corpus, log: Log, usable: NDArray[np.bool_], settings: Settings, store: Store, progress: Progress
) -> Prepared:
    """The groups of `train_from_recall`, which must be used before the store is closed."""
    asked = settings.training
    everything = Sequences.of(log)
    open_ = usable[everything.touch]
    known = everything.keep(open_)
    from_end = np.zeros(len(everything.items), np.int64)
    from_end[open_] = known.from_end
    targets = np.flatnonzero(open_ & (from_end < asked.targets) & (everything.from_start >= asked.least_history))
    folds = np.random.default_rng(asked.seed).permutation(len(everything)) % asked.folds
    made = count(1)

    def step() -> None:
        done = next(made)
        if done % 50 == 0:
            progress("training groups from recall", done, len(targets))

    def part(fold: int) -> Groups:
        in_fold = folds[everything.person] == fold
        kept = everything.keep(open_ & ~(in_fold & (from_end < asked.targets)))
        builder = _builder(corpus, kept, settings)
        examples = from_recall(
            log, everything, targets[in_fold[targets]], retriever(builder.knowledge), asked.candidates,
            settings.state.depth, step,
        )  # fmt: skip
        return store.groups(log, builder, examples.only(examples.found))

    parts = [part(fold) for fold in range(asked.folds)]
    progress("training groups from recall", len(targets), len(targets))
    validation, *train = parts
    # one positive among all candidates: every place is worth a pair
    parameters = {"lambdarank_truncation_level": asked.candidates} | dict(settings.ranker.parameters)
    made_of = {"training": sum(len(part) for part in train), "validation": len(validation)}
    counts = {**made_of, "without_positive": len(targets) - sum(made_of.values())}
    ranker = replace(settings.ranker, parameters=parameters)
    final = _builder(corpus, known, settings)
    return Prepared(train, validation, final, ranker, counts, _sample(train, settings), corpus.pairs)


def fit_corpus(corpus: Corpus, sequences: Sequences, settings: ItemSettings) -> ItemKnowledge:
    """All that is known of the items: what was learnt of these touches, and what the corpus has of its models."""
    knowledge = fit_items(corpus.catalogue, corpus.text, corpus.terms, sequences, settings)
    return replace(knowledge, tokens=corpus.tokens, made_by=corpus.made_by)


def cut_at(log: Log, share: float) -> float:
    """Unix seconds before which this share of the interactions lies."""
    if not len(log.interactions):
        raise ValueError("there are no interactions to cut by time; load some with `feedrank import`")
    return float(np.quantile(log.interactions.at, share))


def retriever(knowledge: ItemKnowledge) -> EmbeddingRetriever:
    """Recall by brute force over the knowledge's space: the reference, and quick enough for groups in bulk."""
    return EmbeddingRetriever(knowledge.catalogue, knowledge.space, ExactIndex(knowledge.space.targets, "dot"))


def _builder(corpus: Corpus, sequences: Sequences, settings: Settings) -> FeatureBuilder:
    return FeatureBuilder(fit_corpus(corpus, sequences, settings.items), settings.state, settings.features)


def _sample(parts: Sequence[Groups], settings: Settings) -> Matrix:
    return drift.sample([part.matrix for part in parts], settings.training.seed)
