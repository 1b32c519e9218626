"""Serving one request: the pipeline, deadlines, fallbacks and the recommender."""
