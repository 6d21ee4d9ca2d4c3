"""Blocks: owners, repos and licenses whose models are not indexed."""
