"""Deterministic curriculum sampling for training from sharded data: easy to hard."""
