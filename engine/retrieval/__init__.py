"""Candidate retrieval: the embedding space, vector indexes, retrievers and diversity."""
