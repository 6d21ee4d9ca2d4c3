"""Statements on models, their names, revisions and attributes."""
