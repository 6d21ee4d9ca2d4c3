"""Comparison of sets of adapters that are selected by their vectors with random sets."""
