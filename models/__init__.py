"""What is learnt: embedders, item views, the LambdaRank ranker, metrics, training, bundles."""
