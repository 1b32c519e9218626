"""The composition root: the only place that creates components from the config and connects them.

`training_inputs` reads the journal and writes bundles, `serving` builds a recommender from a bundle, and `text_signals`
runs the text models.
"""

from feedrank.api.compose.comparisons import TimedComparison, compare, protocols_of
from feedrank.api.compose.retraining_run import RetrainOptions, RetrainRun, retrain_bundle
from feedrank.api.compose.serving import (
    build_pipeline,
    build_recommender,
    restore_state,
    save_state_snapshot,
)
from feedrank.api.compose.training_inputs import (
    TrainingInputs,
    check_bundle_name,
    check_shuffled_labels,
    fit_without_ranker,
    load_training_inputs,
    prepare_training_data,
    save_bundle,
    save_trained_bundle,
    train,
    with_tuned_parameters,
)
from feedrank.api.compose.training_run import TrainingRun, train_bundle
from feedrank.api.compose.vector_index import build_vector_index

__all__ = [
    "RetrainOptions",
    "RetrainRun",
    "TimedComparison",
    "TrainingInputs",
    "TrainingRun",
    "build_pipeline",
    "build_recommender",
    "build_vector_index",
    "check_bundle_name",
    "check_shuffled_labels",
    "compare",
    "fit_without_ranker",
    "load_training_inputs",
    "prepare_training_data",
    "protocols_of",
    "restore_state",
    "retrain_bundle",
    "save_bundle",
    "save_state_snapshot",
    "save_trained_bundle",
    "train",
    "train_bundle",
    "with_tuned_parameters",
]
