"""Inference with text models: embedders, token vectors, cross-encoders, and their caches."""
