"""Transforms that are fitted to the vectors of a space."""
