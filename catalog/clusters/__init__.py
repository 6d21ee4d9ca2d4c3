"""Clusters: found, named, kept and assigned."""
