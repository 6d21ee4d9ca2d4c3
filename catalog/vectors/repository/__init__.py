"""Statements on vectors and the change feed."""
