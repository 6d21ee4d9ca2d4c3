"""Composing selected adapters and measuring the result."""
