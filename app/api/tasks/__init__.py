"""Tasks by example."""
