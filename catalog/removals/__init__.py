"""Removal of models by admins and blocks, and of spaces."""
