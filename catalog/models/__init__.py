"""Fine-tunes by name: revisions, former names, attributes."""
