"""Untrusted files, read in processes of their own (docs/decisions/0085)."""
