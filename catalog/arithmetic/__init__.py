"""Sums of named vectors: the expression language, the resolution of names, and the distance of a sum from a model."""
