"""feedrank: a recommendation-ranking engine."""
