"""The models package holds text models, the item model, the LambdaRank ranker, training, evaluation and bundles."""
