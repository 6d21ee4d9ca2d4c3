"""Two-dimensional maps of all models of a space."""
