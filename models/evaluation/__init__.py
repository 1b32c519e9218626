"""Offline evaluation: protocols, metrics, intervals, ablation and reports."""
