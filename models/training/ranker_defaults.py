"""The default LightGBM parameters of the ranker, and what of them depends on the size of the training data."""

from __future__ import annotations

from typing import Any

DEFAULT_PARAMETERS: dict[str, Any] = {
    "objective": "lambdarank",
    "metric": "ndcg",
    "eval_at": [10],
    "learning_rate": 0.1,
    "num_leaves": 8,
    "min_data_in_leaf": 80,
    "feature_fraction": 0.4,
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 10.0,
    "max_bin": 63,
    "lambdarank_truncation_level": 30,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}
"""The parameters for large data: 20,000 rows and 40 features or more."""
ROWS_PER_LEAF_ROW = 250
"""A leaf needs one row for so many rows of the training data, at least `MIN_LEAF_ROWS`."""
MIN_LEAF_ROWS = 5
ROWS_PER_L2 = 2_000
"""The L2 regularisation of leaves grows by 1 with so many rows, from 1."""
MIN_FEATURES = 16
"""Features that each tree may use at least, if there are as many."""


def default_parameters(rows: int, features: int) -> dict[str, Any]:
    """Return the parameters for a number of training rows and features.

    On small data, 80 rows in a leaf and an L2 of 10 leave little to learn; on few features, a share of 0.4 of them
    leaves hardly any for a tree. LightGBM's own defaults (20 rows, no L2, all features) and those of XGBoost and
    CatBoost (leaves of a single row, L2 of 1 and 3) are made for that case. Chosen by the mean test nDCG@10 of repeated
    splits of LightGBM's example and of made-up lists; large data keeps what was chosen on MovieLens and MIND.
    """
    usual = DEFAULT_PARAMETERS
    return usual | {
        "min_data_in_leaf": max(MIN_LEAF_ROWS, min(usual["min_data_in_leaf"], rows // ROWS_PER_LEAF_ROW)),
        "lambda_l2": max(1.0, min(usual["lambda_l2"], rows / ROWS_PER_L2)),
        "feature_fraction": max(usual["feature_fraction"], min(1.0, MIN_FEATURES / max(features, 1))),
    }
