"""Health, metrics and counts."""
