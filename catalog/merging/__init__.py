"""Merges of adapters: what can be asked, and what can be told before anything is computed."""
