"""Retraining on new data, the promotion gate and drift."""
