"""Models: names, revisions and attributes."""
