"""Training of the ranker: labels, query groups, matrices, LambdaRank and its tuning."""
