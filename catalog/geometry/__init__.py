"""Fitted transforms of vectors."""
