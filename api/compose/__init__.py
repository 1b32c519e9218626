"""The composition root: the only place that creates components from the config and connects them.

`training_inputs` reads the journal and writes bundles, `serving` builds a recommender from a bundle, and `text_signals`
runs the text models.
"""

from feedrank.api.compose.serving import (
    QueriesInRecallOrder,
    RecallOrder,
    living_state,
    pipeline,
    recommender,
    take_snapshot,
    vector_index,
)
from feedrank.api.compose.training_inputs import (
    Material,
    check_name,
    index_only,
    material,
    prepare,
    retrain,
    save,
    save_trained,
    train,
    version,
    with_tuned,
)

__all__ = [
    "Material",
    "QueriesInRecallOrder",
    "RecallOrder",
    "check_name",
    "index_only",
    "living_state",
    "material",
    "pipeline",
    "prepare",
    "recommender",
    "retrain",
    "save",
    "save_trained",
    "take_snapshot",
    "train",
    "vector_index",
    "version",
    "with_tuned",
]
