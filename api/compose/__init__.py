"""The composition root: the only place that creates components from the config and connects them.

`training_inputs` reads the journal and writes bundles, `serving` builds a recommender from a bundle, and `text_signals`
runs the text models.
"""

from api.compose.learning import (
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
from api.compose.serving import (
    QueriesInRecallOrder,
    RecallOrder,
    living_state,
    pipeline,
    recommender,
    take_snapshot,
    vector_index,
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
