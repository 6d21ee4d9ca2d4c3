"""Merging adapters."""
