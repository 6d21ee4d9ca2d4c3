"""Statements on crawls and listings."""
