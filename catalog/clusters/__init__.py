"""Clusters of the models in a space: computed in runs, named, numbered across runs, and extended by new models."""
