"""The composition root: the one place where parts are chosen by name and put together.

`learning` reads the journal and writes bundles; `serving` opens a bundle and answers; `signals` makes the neural parts.
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
