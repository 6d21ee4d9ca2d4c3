"""Models, their revisions, and access to private models."""
