"""Vectors, the change feed, shared numerics, and when derived data is stale."""
