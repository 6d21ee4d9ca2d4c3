"""Spaces, for admins."""
