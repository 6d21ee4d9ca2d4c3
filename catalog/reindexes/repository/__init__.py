"""Statements on reindexes."""
