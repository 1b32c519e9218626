"""Experiments: which arm a request is in, what the arm shows, and how it is logged."""
