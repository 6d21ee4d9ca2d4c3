"""Viewers, access to private models, and users' Hub tokens."""
