"""Statements about who may see which rows."""
