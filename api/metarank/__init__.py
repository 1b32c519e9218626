"""Turns a config of Metarank into one of feedrank."""
