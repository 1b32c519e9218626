"""The settings of training: how query groups are built, and all settings of a model together."""

from __future__ import annotations

from dataclasses import dataclass, field

from feedrank.features.feature_settings import FeatureSettings
from feedrank.features.state_spec import StateSpec
from feedrank.models.items.item_model import ItemSettings
from feedrank.models.training.labels import LabelSettings
from feedrank.models.training.parquet_dataset import MatrixStore
from feedrank.models.training.ranker import LambdaRankSettings


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """[training] How query groups are built. Defaults were chosen on validation (docs/explanation/evaluation.md)."""

    folds: int = 4
    """Number of blocks of time that logged rankings are split into. If groups come from recall: number of user folds,
    one of which is the validation slice. Unit: folds."""
    targets_per_user: int = 6
    """Groups per user if they come from recall: one for each of the latest interactions. Unit: groups."""
    min_history: int = 5
    """Minimum number of interactions before a target interaction, if groups come from recall. Unit: interactions."""
    candidates: int = 100
    """Number of candidates in a group, if groups come from recall. Unit: items."""
    min_rankings: int = 500
    """Minimum number of rankings with a click in the log to train on rankings instead of recall. A log without any
    interaction, such as a feature file, is trained on its rankings however few they are. Unit: rankings."""
    memory_mb: int = 2_000
    """Memory limit of the training matrices; beyond it they are Parquet files that LightGBM reads in chunks."""
    use_logged_features: bool = True
    """Train on the features logged at serving if the feature list is the same; otherwise compute them by replay."""
    max_feature_auc: float = 0.95
    """A single feature that ranks logged rankings with a higher AUC probably holds the answer: `train` and `evaluate`
    warn, and the gate of `retrain` refuses. Groups from recall are not checked, as most of their items are easy to tell
    from the next one. 1: no feature is suspected."""
    seed: int = 7
    """Seed of the split of users into folds, and of the samples behind intervals and drift in reports."""

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise ValueError(f"folds is {self.folds}; expected at least 2")
        if self.memory_mb < 0:
            raise ValueError(f"memory_mb is {self.memory_mb}; expected at least 0")
        if not 0.5 < self.max_feature_auc <= 1:
            raise ValueError(f"max_feature_auc is {self.max_feature_auc}; expected above 0.5, at most 1")

    def matrix_store(self) -> MatrixStore:
        """Return a store for the training matrices."""
        return MatrixStore(self.memory_mb, self.use_logged_features)


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """All settings of item models, features, labels and the ranker."""

    items: ItemSettings = field(default_factory=ItemSettings)
    state: StateSpec = field(default_factory=StateSpec)
    features: FeatureSettings = field(default_factory=FeatureSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    labels: LabelSettings = field(default_factory=LabelSettings)
    ranker: LambdaRankSettings = field(default_factory=LambdaRankSettings)
