"""Health checks, metrics and statistics."""
