"""Models that read text, at work: embedders, token vectors, cross-encoders, and their caches."""
