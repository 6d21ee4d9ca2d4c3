"""The map of a space."""
