"""Vectors, the change feed, shared numerics, and the refresh policy of clusters and maps."""
