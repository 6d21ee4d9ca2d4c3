"""Tasks by example: their examples, runs and rankings."""
