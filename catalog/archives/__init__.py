"""Adapter archives that Postgres keeps."""
