"""Blocks of owners, repos and licenses."""
