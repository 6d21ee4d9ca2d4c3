"""Merges of adapters: their specs, plans and results."""
