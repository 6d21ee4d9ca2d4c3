"""SQL of reindexes."""
