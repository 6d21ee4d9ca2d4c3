"""Reindexes."""
