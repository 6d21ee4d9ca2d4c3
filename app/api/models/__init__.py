"""Models, their revisions and who may see them."""
