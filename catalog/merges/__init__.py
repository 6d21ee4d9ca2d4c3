"""Merges: planned and recorded."""
