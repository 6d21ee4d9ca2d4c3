"""Stored vectors."""
