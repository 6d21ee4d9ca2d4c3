"""Clusters and cluster runs."""
