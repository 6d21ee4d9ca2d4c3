"""SQL for models, their names, revisions and attributes."""
