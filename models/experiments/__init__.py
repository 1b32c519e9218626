"""Analyses experiments: collects outcomes by arm and tests which arm is better."""
