"""Statements on clusters, their members and their runs."""
