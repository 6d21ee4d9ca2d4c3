"""Measure how well vectors separate labeled models: `deltadex evaluate`."""
